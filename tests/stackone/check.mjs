// Every IAM, accounts and connectors call that Rolecall answers, with StackOne's SDK.
//
// Usage: check.mjs DEMO.json — the line that `rolecall demo --json` prints. The truth is asked of
// the simulator behind the demo, or of the same answer without the SDK.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const { StackOne } = require('@stackone/stackone-client-ts');
const errors = require('@stackone/stackone-client-ts/sdk/models/errors');

const demo = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const admin = demo.accounts.find((account) => account.as === 'system_admin').id;
const member = demo.accounts.find((account) => account.as === 'member').id;
let passed = 0;
let failed = 0;

function check(name, holds, seen) {
  if (holds) {
    passed += 1;
  } else {
    failed += 1;
    console.log(`FAILED ${name}:`, seen);
  }
}

const same = (name, seen, expected) =>
  check(name, JSON.stringify(seen) === JSON.stringify(expected), { seen, expected });

const client = (key) =>
  new StackOne({ serverURL: demo.base_url, security: { username: key, password: '' }, retryConfig: { strategy: 'none' } });
const sdk = client(demo.api_key);

/** The call fails with this class of the SDK's. */
async function refused(name, kind, status, call) {
  let seen;
  try {
    seen = await call();
  } catch (error) {
    seen = error;
  }
  const holds = seen instanceof errors[kind] && seen.statusCode === status && seen.message !== '';
  check(`${name} is ${kind}`, holds, seen);
}

/** The same route without the SDK. */
async function plain(path, account) {
  const headers = { authorization: `Bearer ${demo.api_key}`, ...(account && { 'x-account-id': account }) };
  return (await fetch(`${demo.base_url}${path}`, { headers })).json();
}

const kinds = [
  { name: 'users', list: 'listUsers', get: 'getUser', page: 'iamUsersPaginated', record: 'iamUserResult' },
  { name: 'roles', list: 'listRoles', get: 'getRole', page: 'iamRolesPaginated', record: 'iamRoleResult' },
  { name: 'groups', list: 'listGroups', get: 'getGroup', page: 'iamGroupsPaginated', record: 'iamGroupResult' },
];

async function all(kind, query) {
  const records = [];
  for await (const page of await sdk.iam[kind.list](query)) {
    records.push(...page[kind.page].data);
  }
  return records;
}

async function directory() {
  // Some ids are larger than a JavaScript number holds: they are made texts before they are read.
  const text = await (await fetch(`${demo.simulator.control_url}/truth`)).text();
  const truth = JSON.parse(text.replace(/:\s*(\d{16,})/g, ':"$1"'));
  for (const kind of kinds) {
    const whole = await all(kind, { xAccountId: admin, pageSize: '100' });
    const { total } = await plain(`/unified/iam/${kind.name}?page_size=1`, admin);
    check(`${kind.name} are as many as their total`, whole.length === total, [whole.length, total]);
    check(`${kind.name} are there once each`, new Set(whole.map((it) => it.id)).size === whole.length);
    for (const pageSize of ['1', '7', '25']) {
      same(`${kind.name} by pages of ${pageSize}`, await all(kind, { xAccountId: admin, pageSize }), whole);
    }
    for (const record of whole) {
      for (const id of [record.id, record.remoteId]) {
        const got = await sdk.iam[kind.get]({ xAccountId: admin, id });
        same(`${kind.name} ${id}`, got[kind.record].data, record);
      }
    }
    const cut = await all(kind, { xAccountId: admin, pageSize: '100', fields: 'id,name' });
    same(
      `${kind.name} cut down to fields`,
      cut.map(({ id, name, ...rest }) => [id, name, Object.values(rest).every((it) => it === undefined)]),
      whole.map(({ id, name }) => [id, name, true]),
    );
  }
  const users = await all(kinds[0], { xAccountId: admin, pageSize: '100' });
  const told = new Set(users.map((user) => user.remoteId));
  check('everybody of the truth is there', truth.users.every((user) => told.has(String(user.id))));
  const groups = await all(kinds[2], { xAccountId: admin, pageSize: '100' });
  const ids = (records) => records.map((record) => record.remoteId ?? String(record.id)).sort();
  same('every group of the truth is there', ids(groups), ids(truth.groups));
  const expanded = await all(kinds[0], { xAccountId: admin, pageSize: '100', expand: 'roles,groups' });
  const nested = expanded.flatMap((user) => [...(user.roles ?? []), ...(user.groups ?? [])]);
  check('what is nested is whole with expand', nested.length > 0 && nested.every((it) => it.type?.value), nested[0]);
  for (const kind of kinds) {
    const reads = [];
    for await (const page of await sdk.iam[kind.list]({ xAccountId: admin, raw: true })) {
      reads.push(...page[kind.page].raw);
    }
    const isRead = (it) => it.method === 'GET' && it.url.startsWith(demo.simulator.api_base);
    check(`${kind.name} tell where they came from`, reads.length > 0 && reads.every(isRead), reads);
  }
  const seen = await all(kinds[0], { xAccountId: member, pageSize: '100' });
  check("a member's token shows no roles", seen.length > 0 && seen.every((user) => user.roles === null), seen[0]);
}

async function connectors() {
  const list = (await sdk.connectors.listConnectorsMeta({ include: 'field_path,resources' })).classes;
  same('connectors', list.map((it) => [it.provider, it.providerName, it.category, it.active]), [
    ['smartsheet', 'Smartsheet', 'iam', true],
  ]);
  same('models', Object.keys(list[0].models), ['users', 'roles', 'groups']);
  const one = await sdk.connectors.getConnectorMeta({ provider: 'smartsheet' });
  same('one connector', one.connectorsMeta, list[0]);
  const meta = (await sdk.accounts.getAccountMetaInfo({ id: admin })).linkedAccountMeta;
  same("an account's meta", [meta.provider, meta.category, meta.models], ['smartsheet', 'iam', list[0].models]);
}

async function accounts() {
  const list = async (query) => (await sdk.accounts.listLinkedAccounts(query)).classes.map((it) => it.id);
  const both = [admin, member];
  same('accounts', (await list({})).sort(), [...both].sort());
  for (const [name, query, expected] of [
    ['by id', { accountIds: [member] }, [member]],
    ['by two ids', { accountIds: both }, await list({})],
    ['by provider', { provider: 'smartsheet' }, await list({})],
    ['by providers', { providers: ['nobody', 'smartsheet'] }, await list({})],
    ['by another provider', { providers: ['nobody'] }, []],
    ['by status', { status: ['active'] }, await list({})],
    ['by two statuses', { status: ['error', 'inactive'] }, []],
    ['by owners', { originOwnerIds: ['nobody', 'neither'] }, []],
    ['second page', { page: 2, pageSize: 1 }, (await list({})).slice(1)],
    ['past the end', { page: 3, pageSize: 1 }, []],
  ]) {
    same(`accounts ${name}`, await list(query), expected);
  }

  const get = async (id) => (await sdk.accounts.getAccount({ id })).linkedAccount;
  const before = await get(member);
  const update = async (patch) =>
    (await sdk.accounts.updateAccount({ id: member, patchAccountExternalDto: patch })).linkedAccount;
  same('an empty update', await update({}), before);
  const stripped = { label: {}, metadata: {}, secrets: {}, credentials: {}, setupInformation: {}, provider: 'x' };
  same('an update of what the SDK strips', await update(stripped), before);
  const renamed = await update({ originOwnerId: 'customer-2', originOwnerName: 'Two', originUsername: 'two' });
  same('an update', renamed, { ...(await get(member)) });
  same('its fields', [renamed.originOwnerId, renamed.originOwnerName, renamed.originUsername], ['customer-2', 'Two', 'two']);
  same('accounts by the new owner', await list({ originOwnerId: 'customer-2' }), [member]);
  const deleted = (await sdk.accounts.deleteAccount({ id: member })).linkedAccount;
  same('a deletion answers with the account', [deleted.id, deleted.status], [member, 'inactive']);
  same('active accounts after that', await list({ status: ['active'] }), [admin]);
  same('inactive accounts after that', await list({ status: ['inactive'] }), [member]);
  await refused('users of a deleted account', 'PreconditionFailedResponse', 412, () =>
    sdk.iam.listUsers({ xAccountId: member }));
}

/** An invitation: made, authenticated as often as one likes, and told to an SDK in its own shape. */
async function connectSessions() {
  const wanted = {
    originOwnerId: 'customer-3',
    originOwnerName: 'Three',
    originUsername: 'three',
    provider: 'smartsheet',
    categories: ['iam'],
    label: 'Three again',
    expiresIn: 600,
  };
  const made = (await sdk.connectSessions.createConnectSession(wanted)).connectSessionTokenAuthLink;
  for (const field of ['originOwnerId', 'originOwnerName', 'originUsername', 'provider', 'categories', 'label']) {
    same(`${field} of an invitation`, made[field], wanted[field]);
  }
  check("an invitation's id is a number", Number.isSafeInteger(made.id), made.id);
  check("an invitation's organization is a number to this SDK", Number.isSafeInteger(made.organizationId), made);
  check('an invitation was made just now', Math.abs(Date.now() - made.createdAt) < 60_000, made.createdAt);
  check('an invitation has a link', made.authLinkUrl.startsWith(`${demo.base_url}/connect/`), made.authLinkUrl);
  // The link is gone from the address at once: a cookie has it from there on.
  const opened = await fetch(made.authLinkUrl, { redirect: 'manual' });
  const cookie = opened.headers.get('set-cookie').split(';')[0];
  const page = await fetch(new URL(opened.headers.get('location'), made.authLinkUrl), { headers: { cookie } });
  check('the link opens the hub', page.status === 200 && (await page.text()).includes('Three'), page);

  const { token, authLinkUrl, ...told } = made;
  for (const time of ['once', 'twice']) {
    const { connectSession } = await sdk.connectSessions.authenticateConnectSession({ token });
    same(`an invitation authenticated ${time}`, connectSession, told);
  }
  const again = await sdk.connectSessions.createConnectSession({
    originOwnerId: wanted.originOwnerId,
    originOwnerName: wanted.originOwnerName,
    accountId: admin,
  });
  same('an invitation to link again', again.connectSessionTokenAuthLink.accountId, admin);

  await refused('an unknown token', 'ForbiddenResponse', 403, () =>
    sdk.connectSessions.authenticateConnectSession({ token: 'nobody' }));
  await refused('an invitation of nobody', 'BadRequestResponse', 400, () =>
    sdk.connectSessions.createConnectSession({ ...wanted, originOwnerId: '' }));
  await refused('an invitation to another provider', 'BadRequestResponse', 400, () =>
    sdk.connectSessions.createConnectSession({ ...wanted, provider: 'nobody' }));
  await refused('an invitation by a wrong key', 'UnauthorizedResponse', 401, () =>
    client('rk_nobody').connectSessions.createConnectSession(wanted));

  // From 4.34.0 on the SDK takes the organization as a text.
  const later = await fetch(`${demo.base_url}/connect_sessions/authenticate`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${demo.api_key}`,
      'content-type': 'application/json',
      'user-agent': 'speakeasy-sdk/typescript 4.34.1 2.727.9 1.0.0 @stackone/stackone-client-ts',
    },
    body: JSON.stringify({ token }),
  });
  same('a later SDK is told the organization as a text', typeof (await later.json()).organization_id, 'string');
}

async function refusals() {
  const stranger = client('rk_nobody');
  const users = (query) => () => sdk.iam.listUsers({ xAccountId: admin, ...query });
  for (const [name, kind, status, call] of [
    ['a wrong key', 'UnauthorizedResponse', 401, () => stranger.iam.listUsers({ xAccountId: admin })],
    ['a wrong key for accounts', 'UnauthorizedResponse', 401, () => stranger.accounts.listLinkedAccounts({})],
    ['a wrong key for connectors', 'UnauthorizedResponse', 401, () => stranger.connectors.listConnectorsMeta({})],
    ['an unknown account', 'NotFoundResponse', 404, () => sdk.iam.listUsers({ xAccountId: 'nobody' })],
    ['an unknown user', 'NotFoundResponse', 404, () => sdk.iam.getUser({ xAccountId: admin, id: '1' })],
    ['an unknown role', 'NotFoundResponse', 404, () => sdk.iam.getRole({ xAccountId: admin, id: '1' })],
    ['an unknown group', 'NotFoundResponse', 404, () => sdk.iam.getGroup({ xAccountId: admin, id: '1' })],
    ["an unknown account's meta", 'NotFoundResponse', 404, () => sdk.accounts.getAccountMetaInfo({ id: 'nobody' })],
    ['an unknown connector', 'NotFoundResponse', 404, () => sdk.connectors.getConnectorMeta({ provider: 'nobody' })],
    ['a page of 0', 'BadRequestResponse', 400, users({ pageSize: '0' })],
    ['a foreign cursor', 'BadRequestResponse', 400, users({ next: 'x' })],
    ['a misspelt field', 'BadRequestResponse', 400, users({ fields: 'nmae' })],
    ['an unknown status', 'BadRequestResponse', 400, () => sdk.accounts.listLinkedAccounts({ status: ['actve'] })],
    ['an empty owner', 'BadRequestResponse', 400, () =>
      sdk.accounts.updateAccount({ id: admin, patchAccountExternalDto: { originOwnerId: '' } })],
    ['an unknown include', 'BadRequestResponse', 400, () => sdk.connectors.listConnectorsMeta({ include: 'logos' })],
    ['proxy', 'NotImplementedResponse', 501, users({ proxy: { a: 'b' } })],
    ['policies', 'NotImplementedResponse', 501, () => sdk.iam.listPolicies({ xAccountId: admin })],
    ['one policy', 'NotImplementedResponse', 501, () => sdk.iam.getPolicy({ xAccountId: admin, id: '1' })],
    ['a change of a user', 'NotImplementedResponse', 501, () =>
      sdk.iam.updateUser({ xAccountId: admin, id: '1', iamUpdateUserRequestDto: { name: 'x' } })],
    ['a deletion of a user', 'NotImplementedResponse', 501, () => sdk.iam.deleteUser({ xAccountId: admin, id: '1' })],
  ]) {
    await refused(name, kind, status, call);
  }
}

// The last one deletes an account.
for (const part of [directory, connectors, refusals, connectSessions, accounts]) {
  try {
    await part();
  } catch (error) {
    check(`${part.name} to its end`, false, error);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
