"""Runs Smartsheet's own Python SDK, unchanged, against a simulator.

Usage: check.py ANNOUNCEMENT.json — the line that `smartsheet-simulator --json` prints.
"""

import hashlib
import json
import logging
import sys
import urllib.error
import urllib.parse
import urllib.request

import smartsheet

logging.disable(logging.CRITICAL)

with open(sys.argv[1], encoding="utf-8") as file:
    SIMULATOR = json.load(file)

passed = failed = 0


def check(name, holds, seen=None):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print(f"FAILED python: {name}: {seen}")


def client(token):
    sdk = smartsheet.Smartsheet(token, api_base=SIMULATOR["api_base"], max_retry_time=1)
    sdk.errors_as_exceptions(True)
    return sdk


def refused(name, code, call, *args, **kwargs):
    """The call is refused with this error code."""
    try:
        seen = call(*args, **kwargs)
    except smartsheet.exceptions.ApiError as error:
        seen = error.error.result.code
    check(name, seen == code, seen)


def truth():
    with urllib.request.urlopen(SIMULATOR["control_url"] + "/truth") as reply:
        return json.load(reply)


def reads(admin):
    world = truth()
    insiders = [user["id"] for user in world["users"] if user["isInternal"]]

    everybody = admin.Users.list_users(include_all=True)
    check("list_users with include_all is everybody", [u.id for u in everybody.data] == insiders)
    paged, number = [], 1
    while True:
        page = admin.Users.list_users(page_size=30, page=number, include="lastLogin")
        paged += page.data
        if number >= page.total_pages:
            break
        number += 1
    check("list_users page by page is everybody", [u.id for u in paged] == insiders)
    check("lastLogin comes with small pages", any(u.last_login for u in paged))
    check("users carry their flags", any(u.admin for u in paged) and any(u.group_admin for u in paged))

    me = admin.Users.get_current_user()
    check("get_current_user", me.email == "ana.ruiz@example.org", me)
    check("get_current_user with groups", admin.Users.get_current_user(include="groups").id == me.id)
    check("get_user", all(admin.Users.get_user(i).id == i for i in insiders[:5]))
    one = admin.Users.list_users(email="bela.kovacs@example.org")
    check("list_users by e-mail", [u.id for u in one.data] == [insiders[1]], one)

    plans, key = [], None
    while True:
        page = admin.Users.list_user_plans(me.id, last_key=key, include=["planName"])
        plans += page.data
        key = page.last_key
        if not key:
            break
    check("list_user_plans, through an empty page", len(plans) == 2 and plans[0].plan_name == "Example Ltd", plans)
    plan = plans[0].plan_id
    seated = admin.Users.list_users(plan_id=plan, include_all=True)
    check("list_users of a plan has the guests too", len(seated.data) == len(world["users"]))

    groups = admin.Groups.list_groups(include_all=True)
    check("list_groups", [g.id for g in groups.data] == [g["id"] for g in world["groups"]])
    for told, known in list(zip(groups.data, world["groups"]))[:6]:
        members = admin.Groups.get_group(told.id).members
        check(f"get_group {told.name}", {m.id for m in members} == {m["id"] for m in known["members"]})

    iris = next(u["id"] for u in world["users"] if u["email"] == "iris.tanaka@example.org")
    emails = admin.Users.list_alternate_emails(iris)
    check("list_alternate_emails", len(emails.data) == 2, emails)
    one = admin.Users.get_alternate_email(iris, emails.data[0].id)
    check("get_alternate_email", one.email == emails.data[0].email, one)
    check("list_org_sheets", admin.Users.list_org_sheets().total_count == 0)
    check("server_info", admin.Server.server_info() is not None)

    admin.assume_user("chidi.okafor@example.org")
    check("assume_user", admin.Users.get_current_user().email == "chidi.okafor@example.org")
    admin.assume_user(None)
    return plan


def mutations(admin, plan):
    models = smartsheet.models
    body = {"email": "new.one@example.org", "admin": False, "licensedSheetCreator": True, "firstName": "New", "lastName": "One"}
    added = admin.Users.add_user(models.User(body)).result
    check("add_user invites", added.id and str(added.status) == "PENDING", added)
    refused("add_user again", 1016, admin.Users.add_user, models.User(body))

    change = models.User({"admin": False, "licensedSheetCreator": True, "firstName": "Newer"})
    updated = admin.Users.update_user(added.id, change).result
    check("update_user", updated.first_name == "Newer", updated)
    check("deactivate_user", admin.Users.deactivate_user(added.id).result_code == 0)
    check("reactivate_user", admin.Users.reactivate_user(added.id).result_code == 0)
    check("downgrade_user", admin.Users.downgrade_user(added.id, plan, "CONTRIBUTOR").result_code == 0)
    check("upgrade_user", admin.Users.upgrade_user(added.id, plan, "MEMBER").result_code == 0)

    emails = admin.Users.add_alternate_email(added.id, [models.AlternateEmail({"email": "new.alias@example.org"})])
    alias = emails.result[0] if isinstance(emails.result, list) else emails.result
    check("add_alternate_email", alias.email == "new.alias@example.org", emails)
    refused("promote_alternate_email, unconfirmed", 1360, admin.Users.promote_alternate_email, added.id, alias.id)
    check("delete_alternate_email", admin.Users.delete_alternate_email(added.id, alias.id).result_code == 0)

    group = admin.Groups.create_group(models.Group({"name": "By SDK", "members": [{"email": "ana.ruiz@example.org"}]})).result
    check("create_group", len(group.members) == 1, group)
    refused("create_group again", 1103, admin.Groups.create_group, models.Group({"name": "By SDK"}))
    renamed = admin.Groups.update_group(group.id, models.Group({"name": "By Python", "description": "Renamed"})).result
    check("update_group", renamed.name == "By Python", renamed)
    member = models.GroupMember({"email": "new.one@example.org"})
    check("add_members", admin.Groups.add_members(group.id, member).result_code == 0)
    refused("add_members again", 1129, admin.Groups.add_members, group.id, member)
    check("get_group has them", len(admin.Groups.get_group(group.id).members) == 2)
    check("remove_member", admin.Groups.remove_member(group.id, added.id).result_code == 0)
    check("delete_group", admin.Groups.delete_group(group.id).result_code == 0)

    check("remove_user_from_plan", admin.Users.remove_user_from_plan(added.id, plan).result_code == 0)
    refused("get_user of the removed", 1020, admin.Users.get_user, added.id)
    again = admin.Users.add_user(models.User(body)).result
    check("remove_user", admin.Users.remove_user(again.id).result_code == 0)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def authorize(login, scope):
    """Asks for consent as a browser would; gives what comes back on the redirect URL."""
    app = SIMULATOR["oauth_client"]
    query = {"response_type": "code", "client_id": app["client_id"], "scope": scope, "state": "s 1"}
    with urllib.request.urlopen(SIMULATOR["authorize_url"] + "?" + urllib.parse.urlencode(query)) as page:
        check("the page of consent is a form", b'<form method="post"' in page.read())
    form = urllib.parse.urlencode({**query, "login": login, "decision": "allow"}).encode()
    try:
        urllib.request.build_opener(NoRedirect).open(SIMULATOR["authorize_url"], form)
    except urllib.error.HTTPError as reply:
        back = urllib.parse.urlsplit(reply.headers["Location"])
        return dict(urllib.parse.parse_qsl(back.query))
    return {}


def oauth(admin):
    app = SIMULATOR["oauth_client"]
    proof = lambda grant: hashlib.sha256(f"{app['client_secret']}|{grant}".encode()).hexdigest()
    back = authorize("farah.haddad@example.org", "READ_USERS ADMIN_USERS")
    check("the redirect carries code and state", back.get("state") == "s 1" and "code" in back, back)
    code = back["code"]
    refused("get_access_token with a wrong hash", 1072, admin.Token.get_access_token, app["client_id"], code, proof("x"))
    first = admin.Token.get_access_token(app["client_id"], code, proof(code))
    check("get_access_token", first.access_token and first.expires_in == 604799, first)
    refused("get_access_token again", 1071, admin.Token.get_access_token, app["client_id"], code, proof(code))
    person = client(first.access_token)
    check("the token is the person's", person.Users.get_current_user().email == "farah.haddad@example.org")
    # The SDK sends the old token with the refresh.
    second = person.Token.refresh_access_token(app["client_id"], first.refresh_token, proof(first.refresh_token))
    check("refresh_access_token", second.access_token != first.access_token, second)
    refused("the old access token", 1002, person.Users.get_current_user)
    refused(
        "the old refresh token", 1071,
        admin.Token.refresh_access_token, app["client_id"], first.refresh_token, proof(first.refresh_token),
    )
    person = client(second.access_token)
    check("list_users by OAuth", person.Users.list_users().total_count > 0)
    check("revoke_access_token", person.Token.revoke_access_token().result_code == 0)
    refused("the revoked token", 1002, person.Users.get_current_user)


def errors(admin):
    tokens = SIMULATOR["tokens"]
    refused("an unknown token", 1002, client("wrong").Users.get_current_user)
    refused("a revoked token", 1002, client(tokens["revoked"]).Users.get_current_user)
    narrow = client(tokens["no_read_users"])
    check("me without READ_USERS", narrow.Users.get_current_user().email == "dana.levi@example.org")
    refused("list_users without READ_USERS", 1004, narrow.Users.list_users)
    member = client(tokens["member"])
    check("a member sees no status", all(u.status is None or str(u.status) == "None" for u in member.Users.list_users().data))
    refused("a member adds nobody", 1004, member.Users.deactivate_user, 1)
    refused("a member makes no group", 1104, member.Groups.create_group, smartsheet.models.Group({"name": "No"}))
    refused("an unknown user", 1020, admin.Users.get_user, 1)
    refused("an unknown group", 1106, admin.Groups.get_group, 1)


ADMIN = client(SIMULATOR["tokens"]["system_admin"])
for part in (lambda: mutations(ADMIN, reads(ADMIN)), lambda: oauth(ADMIN), lambda: errors(ADMIN)):
    try:
        part()
    except Exception as error:  # a part that breaks off has failed, and the next one still runs
        check("runs to its end", False, repr(error))
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
