// Runs Smartsheet's own JavaScript SDK, unchanged, against a simulator.
//
// Usage: check.mjs ANNOUNCEMENT.json — the line that `smartsheet-simulator --json` prints.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const smartsheet = require('smartsheet');

const simulator = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const app = simulator.oauth_client;
let passed = 0;
let failed = 0;

function check(name, holds, seen) {
  if (holds) {
    passed += 1;
  } else {
    failed += 1;
    console.log(`FAILED javascript: ${name}:`, seen);
  }
}

const client = (accessToken) =>
  smartsheet.createClient({ accessToken, baseUrl: `${simulator.api_base}/`, maxRetryDurationSeconds: 1 });

/** The call is refused with this error code. */
async function refused(name, code, call) {
  let seen;
  try {
    seen = await call();
  } catch (error) {
    seen = error.errorCode;
  }
  check(name, seen === code, seen);
}

const truth = async () => (await fetch(`${simulator.control_url}/truth`)).json();

/** Ids of which a JavaScript number is sure. */
const isSafe = (row) => Number.isSafeInteger(row.id);

async function reads(admin) {
  const world = await truth();
  const insiders = world.users.filter((user) => user.isInternal);
  const ids = (rows) => rows.map((row) => row.id).join();

  const everybody = await admin.users.listAllUsers({ queryParameters: { includeAll: true } });
  check('listAllUsers with includeAll is everybody', ids(everybody.data) === ids(insiders));
  check('includeAll has no pageSize', everybody.pageSize === undefined, everybody.pageSize);
  const paged = [];
  for (let page = 1, pages = 1; page <= pages; page += 1) {
    const reply = await admin.users.listAllUsers({ queryParameters: { page, pageSize: 30, include: 'lastLogin' } });
    paged.push(...reply.data);
    pages = reply.totalPages;
  }
  check('listAllUsers page by page is everybody', ids(paged) === ids(insiders));
  check('lastLogin comes with small pages', paged.some((user) => user.lastLogin));

  const me = await admin.users.getCurrentUser({});
  check('getCurrentUser', me.email === 'ana.ruiz@example.org' && me.admin === true, me);
  const withGroups = await admin.users.getCurrentUser({ queryParameters: { include: 'groups' } });
  check('getCurrentUser with groups', Array.isArray(withGroups.data), withGroups);
  for (const known of insiders.filter(isSafe).slice(0, 3)) {
    const told = await admin.users.getUser({ userId: known.id });
    check(`getUser ${known.email}`, told.id === known.id && told.status === known.status, told);
  }

  const plans = [];
  let lastKey;
  do {
    const reply = await admin.users.listUserPlans({ userId: me.id, queryParameters: { lastKey, include: ['planName'] } });
    plans.push(...reply.data);
    lastKey = reply.lastKey;
  } while (lastKey);
  check('listUserPlans, through an empty page', plans.length === 2 && plans[0].planName === 'Example Ltd', plans);
  const { planId } = plans[0];
  const seated = await admin.users.listAllUsers({ queryParameters: { planId, includeAll: true } });
  check('listAllUsers of a plan has the guests and the seats', JSON.stringify(seated.data.map((u) => u.seatType)) === JSON.stringify(world.users.map((u) => u.seatType)));

  const groups = await admin.groups.listGroups({ queryParameters: { includeAll: true } });
  check('listGroups', ids(groups.data) === ids(world.groups));
  for (const known of world.groups.filter(isSafe).slice(0, 4)) {
    const told = await admin.groups.getGroup({ groupId: known.id });
    check(`getGroup ${known.name}`, ids(told.members) === ids(known.members), told);
  }
  check('getServerInfo', (await admin.server.getInfo({})).supportedLocales.length > 0);

  const assumed = await admin.users.getCurrentUser({ assumeUser: 'chidi.okafor@example.org' });
  check('assumeUser', assumed.email === 'chidi.okafor@example.org', assumed);
  return planId;
}

/** Adds users until one has an id of which a JavaScript number is sure. */
async function addUser(admin, body) {
  for (let attempt = 1; attempt < 20; attempt += 1) {
    const email = `js.${attempt}.${body.email}`;
    const { result } = await admin.users.addUser({ body: { ...body, email } });
    if (isSafe(result)) return result;
  }
  throw new Error('no safe id in twenty');
}

async function mutations(admin, planId) {
  const body = { email: 'new.one@example.org', admin: false, licensedSheetCreator: true, firstName: 'New' };
  const added = await addUser(admin, body);
  check('addUser invites', added.status === 'PENDING', added);
  await refused('addUser again', 1016, () => admin.users.addUser({ body: { ...body, email: added.email } }));
  const change = { admin: false, licensedSheetCreator: true, firstName: 'Newer' };
  const updated = await admin.users.updateUser({ userId: added.id, body: change });
  check('updateUser', updated.result.firstName === 'Newer', updated);
  const user = { userId: added.id };
  const seat = { ...user, planId };
  check('deactivateUser', (await admin.users.deactivateUser(user)).resultCode === 0);
  check('deactivated', (await admin.users.getUser(user)).status === 'DEACTIVATED');
  check('reactivateUser', (await admin.users.reactivateUser(user)).resultCode === 0);
  check('downgradeUser', (await admin.users.downgradeUser({ ...seat, body: { seatType: 'CONTRIBUTOR' } })).resultCode === 0);
  await refused('downgradeUser to VIEWER', 1031, () => admin.users.downgradeUser({ ...seat, body: { seatType: 'VIEWER' } }));
  check('upgradeUser', (await admin.users.upgradeUser({ ...seat, body: { seatType: 'MEMBER' } })).resultCode === 0);

  const { result } = await admin.users.addAlternateEmail({ ...user, body: [{ email: 'js.alias@example.org' }] });
  check('addAlternateEmail', result[0].email === 'js.alias@example.org', result);
  const emails = await admin.users.listAlternateEmails(user);
  check('listAlternateEmails', emails.data.length === 1, emails);

  const group = (await admin.groups.createGroup({ body: { name: 'By SDK', members: [{ email: added.email }] } })).result;
  check('createGroup', group.members[0].id === added.id, group);
  await refused('createGroup again', 1103, () => admin.groups.createGroup({ body: { name: 'By SDK' } }));
  const groups = (await admin.groups.listGroups({ queryParameters: { includeAll: true } })).data;
  check('the group is listed', groups.some((row) => row.name === 'By SDK'));
  if (isSafe(group)) {
    const one = { groupId: group.id };
    check('updateGroup', (await admin.groups.updateGroup({ ...one, body: { name: 'By JavaScript' } })).result.name === 'By JavaScript');
    const more = await admin.groups.addGroupMembers({ ...one, body: [{ email: added.email }, { email: 'bela.kovacs@example.org' }] });
    check('addGroupMembers skips who is in', more.result.length === 1, more);
    check('removeGroupMember', (await admin.groups.removeGroupMember({ ...one, userId: added.id })).resultCode === 0);
    check('deleteGroup', (await admin.groups.deleteGroup(one)).resultCode === 0);
  }
  check('removeUserFromPlan', (await admin.users.removeUserFromPlan(seat)).resultCode === 0);
  await refused('getUser of the removed', 1020, () => admin.users.getUser(user));
  const again = await addUser(admin, { ...body, email: 'new.two@example.org' });
  check('removeUser', (await admin.users.removeUser({ userId: again.id })).resultCode === 0);
}

/** Asks for consent as a browser would; gives what comes back on the redirect URL. */
async function authorize(decision, login, scope) {
  const query = { response_type: 'code', client_id: app.client_id, scope, state: 's 1' };
  const page = await fetch(`${simulator.authorize_url}?${new URLSearchParams(query)}`);
  check('the page of consent is a form', (await page.text()).includes('<form method="post"'));
  const body = new URLSearchParams({ ...query, login, decision });
  const reply = await fetch(simulator.authorize_url, { method: 'POST', body, redirect: 'manual' });
  return Object.fromEntries(new URL(reply.headers.get('location')).searchParams);
}

async function oauth(admin) {
  const hash = (grant) => createHash('sha256').update(`${app.client_secret}|${grant}`).digest('hex');
  const denied = await authorize('deny', 'farah.haddad@example.org', 'READ_USERS');
  check('deny', denied.error === 'access_denied' && denied.state === 's 1', denied);
  const { code } = await authorize('allow', 'farah.haddad@example.org', 'READ_USERS');
  const redeem = (proof) => admin.tokens.getAccessToken({ queryParameters: { client_id: app.client_id, code, ...proof } });
  await refused('getAccessToken with a wrong secret', 1238, () => redeem({ client_secret: 'x' }));
  const first = await redeem({ hash: hash(code) });
  check('getAccessToken', first.token_type === 'bearer' && first.expires_in === 604799, first);
  await refused('getAccessToken again', 1071, () => redeem({ hash: hash(code) }));
  const refresh = (token) =>
    admin.tokens.refreshAccessToken({
      queryParameters: { client_id: app.client_id, refresh_token: token, hash: hash(token) },
    });
  const second = await refresh(first.refresh_token);
  check('refreshAccessToken', second.access_token !== first.access_token, second);
  await refused('the old access token', 1002, () => client(first.access_token).users.getCurrentUser({}));
  await refused('the old refresh token', 1071, () => refresh(first.refresh_token));
  const person = client(second.access_token);
  check('the token is the person\'s', (await person.users.getCurrentUser({})).email === 'farah.haddad@example.org');
  await refused('a scope that was not asked for', 1004, () => person.users.deactivateUser({ userId: 1 }));
  check('revokeAccessToken', (await person.tokens.revokeAccessToken({})).resultCode === 0);
  await refused('the revoked token', 1002, () => person.users.getCurrentUser({}));
}

async function errors(admin) {
  const { tokens } = simulator;
  await refused('an unknown token', 1002, () => client('wrong').users.getCurrentUser({}));
  await refused('a revoked token', 1002, () => client(tokens.revoked).users.getCurrentUser({}));
  await refused('no READ_USERS', 1004, () => client(tokens.no_read_users).users.listAllUsers({}));
  const seen = await client(tokens.member).users.listAllUsers({});
  check('a member sees no status', seen.data.every((user) => !('status' in user)));
  await refused('an unknown user', 1020, () => admin.users.getUser({ userId: 1 }));
  await refused('an unknown group', 1106, () => admin.groups.getGroup({ groupId: 1 }));
}

const admin = client(simulator.tokens.system_admin);
for (const part of [async () => mutations(admin, await reads(admin)), () => oauth(admin), () => errors(admin)]) {
  try {
    await part();
  } catch (error) {
    // A part that breaks off has failed, and the next one still runs.
    check('runs to its end', false, error);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
