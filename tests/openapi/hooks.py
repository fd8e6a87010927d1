"""What the schemas of the document cannot say, told to schemathesis.

Schemas say what each part of a request may be. They cannot say which ids are of something, that two
parts exclude each other, or that a moment lies in the future; the words of the document do. Here
sound requests are brought in line with these words, so that each of them must be accepted. What
schemathesis has spoilt on purpose stays as it is.
"""

import json
import os
import random
import urllib.parse
import uuid

import requests
import schemathesis
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import UseAfterFree

with open(os.environ["ROLECALL_DEMO"], encoding="utf-8") as file:
    DEMO = json.load(file)

CHANCE = random.Random(1)
ACCOUNTS = [account["id"] for account in DEMO["accounts"]]
API = requests.Session()
API.headers["authorization"] = f"Bearer {DEMO['api_key']}"


def call(method, path, **rest):
    answer = API.request(method, DEMO["base_url"] + path, **rest)
    answer.raise_for_status()
    return answer.json()


def sound_account():
    return {
        "provider": "smartsheet",
        "origin_owner_id": "fuzz",
        "origin_owner_name": "Made to be changed",
        "credential": {
            "type": "access_token",
            "access_token": DEMO["simulator"]["tokens"]["system_admin"],
        },
        "base_url": DEMO["simulator"]["api_base"],
    }


def linked():
    return call("POST", "/accounts", json=sound_account())["id"]


def records(kind):
    listed = call("GET", f"/iam/{kind}?page_size=5", headers={"x-account-id": ACCOUNTS[0]})
    return [record[name] for record in listed["data"] for name in ("id", "remote_id")]


RECORDS = {kind: records(kind) for kind in ("users", "roles", "groups")}
# Two accounts whose last walks are held, since a third of the people were gone.
HELD = [linked() for _ in range(2)]
for account in HELD:
    call("POST", f"/accounts/{account}/walks?wait=60")
truth = requests.get(DEMO["simulator"]["control_url"] + "/truth").json()
gone = [user["id"] for user in truth["users"] if not user["admin"]][::3]
requests.post(
    DEMO["simulator"]["control_url"] + "/mutate",
    json=[{"op": "remove_user", "id": user} for user in gone],
).raise_for_status()
# Somebody who is there still, and whom an administrator's token may stand for.
ASSUMED = next(
    user["email"]
    for user in truth["users"]
    if user["id"] not in gone and not user["admin"] and user["status"] == "ACTIVE"
)
WALKS = []
for account in HELD:
    walk = call("POST", f"/accounts/{account}/walks?wait=60")
    assert walk["state"] == "held", walk
    WALKS.append((account, walk["id"]))


def profile():
    """A connector profile that may be changed."""
    app = DEMO["simulator"]["oauth_client"]
    body = {"provider": "smartsheet", "base_url": DEMO["simulator"]["api_base"]}
    body |= {name: app[name] for name in ("client_id", "client_secret")}
    return call("POST", "/connector_profiles", json=body)["id"]


def sign_in():
    """What a browser brings back from a sign-in that was begun and consented to."""
    app = DEMO["simulator"]["oauth_client"]
    begun = call(
        "POST",
        "/oauth/authorization_url",
        json={
            "profile": DEMO["profile"],
            "callback_url": app["redirect_url"],
            "origin_owner_id": "fuzz",
            "origin_owner_name": "Made to be changed",
        },
    )
    page, _, asked = begun["url"].partition("?")
    form = urllib.parse.parse_qsl(asked)
    form += [("login", "ana.ruiz@example.org"), ("decision", "allow")]
    answer = requests.post(page, data=form, allow_redirects=False)
    back = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answer.headers["location"]).query))
    return {name: back[name] for name in ("state", "code")}


def is_id(text):
    try:
        return str(uuid.UUID(text)) == text
    except (TypeError, ValueError, AttributeError):
        return False


@schemathesis.hook
def before_call(context, case, kwargs):
    name_account(case)
    path(case)
    query(case)
    if isinstance(case.body, dict):
        body(case)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """A key that is revoked, and an account that is disconnected, stay to be seen with their end."""
    stays = case.path.startswith(("/api_keys", "/accounts"))
    return not (isinstance(failure, UseAfterFree) and stays)


def name_account(case):
    """Half of the reads name their account in the header, half of them in the query."""
    if not case.path.startswith("/iam"):
        return
    account = CHANCE.choice(ACCOUNTS)
    case.headers.pop("x-account-id", None)
    in_query = (case.query or {}).get("account_id")
    if is_id(in_query):
        case.query["account_id"] = account
    if not in_query or CHANCE.random() < 0.5:
        case.headers["x-account-id"] = account


def path(case):
    """Half of the ids of the right form are of something, where they come of no earlier answer."""
    ids = case.path_parameters or {}
    # What others read from stays linked and enabled.
    if case.method == "DELETE" and ids.get("id") in ACCOUNTS + HELD:
        ids["id"] = linked()
    elif case.method == "PATCH" and ids.get("id") == DEMO["profile"]:
        ids["id"] = profile()
    if case.meta.phase.name == TestPhase.STATEFUL or CHANCE.random() < 0.5:
        return
    if case.path.startswith("/api_keys") and is_id(ids.get("id")):
        ids["id"] = call("POST", "/api_keys", json={"scopes": ["iam:read"]})["id"]
    elif case.path.startswith("/connector_profiles") and is_id(ids.get("id")):
        ids["id"] = profile()
    elif "walk" in ids and is_id(ids["id"]) and is_id(ids["walk"]):
        ids["id"], ids["walk"] = WALKS[-1] if case.path.endswith("/release") else WALKS[0]
    elif case.method == "DELETE" and is_id(ids.get("id")):
        ids["id"] = linked()
    elif is_id(ids.get("id")):
        ids["id"] = CHANCE.choice(ACCOUNTS)
    elif "record" in ids:
        kind = case.path.split("/")[2]
        ids["record"] = CHANCE.choice(RECORDS.get(kind, ["1"]))
    elif "provider" in ids:
        ids["provider"] = "smartsheet"


def query(case):
    parameters = case.query or {}
    # A list of one empty word is sent as an empty list is, and that is sound.
    for name in ("fields", "expand", "include"):
        if parameters.get(name) in ("", [""]):
            del parameters[name]
    if not case.meta.generation.mode.is_positive:
        return
    # Cursors are the server's own, and bound to what they were given for.
    parameters.pop("next", None)
    # Two names of one filter exclude each other.
    if "filter[updated_after]" in parameters:
        parameters.pop("updated_after", None)


def body(case):
    if not case.meta.generation.mode.is_positive:
        return
    sound = sound_account()
    # An account is linked at a provider that there is, at one of two places, with a token that the
    # provider takes; a region would be Smartsheet's own.
    if case.path == "/accounts":
        case.body.pop("region", None)
        case.body.update({name: sound[name] for name in ("provider", "base_url", "credential")})
        if case.body.get("assume_user"):
            case.body["assume_user"] = ASSUMED
    elif "credential" in case.body:
        case.body["credential"] = sound["credential"]
    if case.path.startswith("/connector_profiles"):
        # At one of two places, here at the demo's.
        case.body.pop("region", None)
        if case.method == "POST":
            case.body.update({name: sound[name] for name in ("provider", "base_url")})
        if case.body.get("scopes"):
            case.body["scopes"] = ["READ_USERS"]
        if case.body.get("redirect_url") is not None:
            case.body["redirect_url"] = "https://app.example.com/oauth/callback"
    # Pages outside are the operator's to register.
    if case.path == "/connect_sessions":
        for name in ("return_url", "opener_origin"):
            case.body.pop(name, None)
        if case.body.get("provider") is not None:
            case.body["provider"] = sound["provider"]
        if case.body.get("connector_profile_id"):
            case.body["connector_profile_id"] = DEMO["profile"]
    if case.path == "/oauth/authorization_url":
        app = DEMO["simulator"]["oauth_client"]
        case.body.update(profile=DEMO["profile"], callback_url=app["redirect_url"])
    # A state and a code are good once.
    if case.path == "/oauth/token_exchange":
        case.body.update(sign_in())
    # Ends lie in the future.
    if case.body.get("expires_at"):
        case.body["expires_at"] = "2999-12-31T23:59:59Z"
