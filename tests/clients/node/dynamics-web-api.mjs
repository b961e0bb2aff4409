// The flows that the documentation of dynamics-web-api shows, against a Dataverse emulator over TLS with tokens.
//
// Knows where the emulator is from EMULATOR_URL, TOKEN_URL, CLIENT_ID, CLIENT_SECRET; trusts its certificate by
// NODE_EXTRA_CA_CERTS. Prints a line per flow that held; the first that does not ends it with an exception.

import assert from "node:assert/strict";
import { DynamicsWebApi } from "dynamics-web-api";

const { EMULATOR_URL, TOKEN_URL, CLIENT_ID, CLIENT_SECRET } = process.env;

async function token() {
  const answer = await fetch(TOKEN_URL, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "client_credentials",
      client_id: CLIENT_ID,
      client_secret: CLIENT_SECRET,
      scope: `${EMULATOR_URL}/.default`,
    }),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()).access_token;
}

const options = { serverUrl: EMULATOR_URL, dataApi: { version: "9.2" } };
const api = new DynamicsWebApi({ ...options, onTokenRefresh: token });
const guid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const label = (text) => ({ LocalizedLabels: [{ Label: text, LanguageCode: 1033 }] });

async function refused(call, status, code) {
  const error = await call.then(
    () => assert.fail("it was not refused"),
    (error) => error,
  );
  assert.equal(error.status, status, error.message);
  if (code) assert.equal(error.code, code, error.message);
  return error;
}

async function flow(name, body) {
  await body();
  console.log(`holds: ${name}`);
}

await flow("a request without a token is refused", async () => {
  const nobody = new DynamicsWebApi({ ...options, onTokenRefresh: async () => "not a token" });
  await refused(nobody.callFunction("WhoAmI"), 401);
});

await flow("functions", async () => {
  const who = await api.callFunction("WhoAmI");
  for (const id of [who.UserId, who.OrganizationId, who.BusinessUnitId]) assert.match(id, guid);
  const version = await api.callFunction("RetrieveVersion");
  assert.match(version.Version, /^9\.2\./);
});

let account;
await flow("create, retrieve, update, delete", async () => {
  account = await api.create({ collection: "accounts", data: { name: "Adventure O'Works", creditlimit: 10.5 } });
  assert.match(account, guid);
  const row = await api.retrieve({ collection: "accounts", key: account, select: ["name", "creditlimit"] });
  assert.equal(row.name, "Adventure O'Works");
  assert.equal(row.creditlimit, 10.5);
  assert.ok(row["@odata.etag"]);
  const written = await api.update({
    collection: "accounts",
    key: account,
    data: { name: "Adventure Works" },
    select: ["name"],
    returnRepresentation: true,
  });
  assert.equal(written.name, "Adventure Works");
  await api.updateSingleProperty({ collection: "accounts", key: account, fieldValuePair: { emailaddress1: "a@example.com" } });
  await api.deleteRecord({ collection: "accounts", key: account, property: "creditlimit" });
  const after = await api.retrieve({ collection: "accounts", key: account, select: ["name", "creditlimit", "emailaddress1"] });
  assert.equal(after.creditlimit, null);
  assert.equal(after.emailaddress1, "a@example.com");
  const other = await api.create({ collection: "accounts", data: { name: "Gone soon" } });
  await api.deleteRecord({ collection: "accounts", key: other });
  await refused(api.retrieve({ collection: "accounts", key: other }), 404, "0x80040217");
});

await flow("conditions", async () => {
  const row = await api.retrieve({ collection: "accounts", key: account, select: ["name"] });
  await api.update({ collection: "accounts", key: account, data: { name: "Adventure Works 2" }, ifmatch: row["@odata.etag"] });
  // The library answers false for a refused condition where it knows of it.
  const late = await api
    .update({ collection: "accounts", key: account, data: { name: "Late" }, ifmatch: row["@odata.etag"] })
    .catch((error) => error.status);
  assert.ok(late === false || late === 412, `${late}`);
  const fresh = "5d1e2f60-0000-4000-8000-000000000001";
  const upserted = await api.upsert({ collection: "accounts", key: fresh, data: { name: "Upserted" } });
  assert.equal(upserted?.toLowerCase?.() ?? fresh, fresh);
  const prevented = await api
    .upsert({ collection: "accounts", key: fresh, data: { name: "Again" }, ifnonematch: "*" })
    .catch((error) => error.status);
  assert.ok(prevented === null || prevented === 412, `${prevented}`);
  assert.equal((await api.retrieve({ collection: "accounts", key: fresh, select: ["name"] })).name, "Upserted");
  await api.deleteRecord({ collection: "accounts", key: fresh });
});

await flow("lookups, deep reads, associations", async () => {
  const contact = await api.create({
    collection: "contacts",
    data: { lastname: "Doe", "parentcustomerid_account@odata.bind": `accounts(${account})` },
  });
  const row = await api.retrieve({
    collection: "contacts",
    key: contact,
    select: ["lastname", "_parentcustomerid_value"],
    expand: [{ property: "parentcustomerid_account", select: ["name"] }],
    includeAnnotations: "*",
  });
  assert.equal(row._parentcustomerid_value, account);
  assert.equal(row.parentcustomerid_account.name, "Adventure Works 2");
  assert.equal(row["_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"], "account");
  await api.associateSingleValued({
    collection: "accounts",
    primaryKey: account,
    navigationProperty: "primarycontactid",
    relatedCollection: "contacts",
    relatedKey: contact,
  });
  const bound = await api.retrieve({ collection: "accounts", key: account, select: ["_primarycontactid_value"] });
  assert.equal(bound._primarycontactid_value, contact);
  await api.disassociateSingleValued({ collection: "accounts", primaryKey: account, navigationProperty: "primarycontactid" });
  const free = await api.retrieve({ collection: "accounts", key: account, select: ["_primarycontactid_value"] });
  assert.equal(free._primarycontactid_value, null);
  await api.deleteRecord({ collection: "contacts", key: contact });
});

await flow("batches, with references in a change set", async () => {
  api.startBatch();
  api.create({ collection: "accounts", data: { name: "Parent" }, contentId: "1" });
  api.create({ collection: "contacts", data: { lastname: "Child", "parentcustomerid_account@odata.bind": "$1" } });
  const [parent, child] = await api.executeBatch();
  const row = await api.retrieve({ collection: "contacts", key: child, select: ["_parentcustomerid_value"] });
  assert.equal(row._parentcustomerid_value, parent);
  api.startBatch();
  api.create({ collection: "accounts", data: { name: "Rolled back" } });
  api.create({ collection: "accounts", data: { name: "x".repeat(5_000) } });
  await assert.rejects(api.executeBatch());
  const left = await api.retrieveMultiple({ collection: "accounts", select: ["name"], filter: "name eq 'Rolled back'" });
  assert.equal(left.value.length, 0);
  api.startBatch();
  api.retrieveMultiple({ collection: "accounts", select: ["name"], filter: "name eq 'Parent'", inChangeSet: false });
  api.deleteRecord({ collection: "contacts", key: child, inChangeSet: false });
  const [read] = await api.executeBatch();
  assert.equal(read.value[0].name, "Parent");
});

await flow("pages, counts, order, aggregates", async () => {
  api.startBatch();
  for (let number = 0; number < 25; number += 1) {
    api.create({ collection: "accounts", data: { name: `Paged ${String(number).padStart(2, "0")}`, numberofemployees: number } });
  }
  await api.executeBatch();
  const query = { collection: "accounts", select: ["name"], filter: "startswith(name,'Paged')", orderBy: ["name desc"] };
  const first = await api.retrieveMultiple({ ...query, maxPageSize: 10, count: true });
  assert.equal(first.value.length, 10);
  assert.equal(first.oDataCount, 25);
  const second = await api.retrieveMultiple({ ...query, maxPageSize: 10 }, first.oDataNextLink);
  assert.equal(second.value[0].name, "Paged 14");
  const all = await api.retrieveAll(query);
  assert.deepEqual(all.value.map((row) => row.name).slice(-1), ["Paged 00"]);
  assert.equal(all.value.length, 25);
  assert.equal(await api.count({ collection: "accounts", filter: "startswith(name,'Paged')" }), 25);
  assert.equal(await api.countAll({ collection: "accounts", filter: "startswith(name,'Paged')" }), 25);
  const sum = await api.retrieveMultiple({
    collection: "accounts",
    apply: "filter(startswith(name,'Paged'))/aggregate(numberofemployees with sum as total)",
  });
  assert.equal(sum.value[0].total, 300);
});

await flow("FetchXML, page by page", async () => {
  const fetchXml = `<fetch><entity name="account"><attribute name="name"/><order attribute="name"/>
    <filter><condition attribute="name" operator="like" value="Paged%"/></filter></entity></fetch>`;
  const paged = fetchXml.replace("<fetch>", '<fetch count="10">');
  // A cookie is an annotation, and comes to those who ask for it.
  const includeAnnotations = "Microsoft.Dynamics.CRM.fetchxmlpagingcookie";
  const first = await api.fetch({ collection: "accounts", fetchXml: paged, pageNumber: 1, includeAnnotations });
  assert.equal(first.value.length, 10);
  assert.ok(first.PagingInfo.cookie);
  const second = await api.fetch({
    collection: "accounts",
    fetchXml: paged,
    pageNumber: first.PagingInfo.nextPage,
    pagingCookie: first.PagingInfo.cookie,
    includeAnnotations,
  });
  assert.equal(second.value[0].name, "Paged 10");
  const all = await api.fetchAll({ collection: "accounts", fetchXml: paged, includeAnnotations });
  assert.equal(all.value.length, 25);
  const total = await api.fetch({
    collection: "accounts",
    fetchXml: `<fetch aggregate="true"><entity name="account"><attribute name="accountid" alias="rows" aggregate="count"/>
      <filter><condition attribute="name" operator="like" value="Paged%"/></filter></entity></fetch>`,
  });
  assert.equal(total.value[0].rows, 25);
});

await flow("changes", async () => {
  const query = { collection: "accounts", select: ["name"] };
  const start = await api.retrieveMultiple({ ...query, trackChanges: true });
  assert.ok(start.oDataDeltaLink);
  const fresh = await api.create({ collection: "accounts", data: { name: "Tracked" } });
  const changed = await fetch(start.oDataDeltaLink, { headers: { authorization: `Bearer ${await token()}` } });
  const rows = (await changed.json()).value;
  assert.deepEqual(rows.map((row) => row.accountid), [fresh]);
});

await flow("bulk actions", async () => {
  const target = (name) => ({ "@odata.type": "Microsoft.Dynamics.CRM.account", name });
  const created = await api.callAction({
    collection: "accounts",
    actionName: "Microsoft.Dynamics.CRM.CreateMultiple",
    action: { Targets: [target("Bulk 1"), target("Bulk 2")] },
  });
  assert.equal(created.Ids.length, 2);
});

await flow("tables, columns, relationships, choices through the metadata API", async () => {
  const table = await api.createEntity({
    data: {
      "@odata.type": "Microsoft.Dynamics.CRM.EntityMetadata",
      SchemaName: "new_Bank",
      DisplayName: label("Bank"),
      DisplayCollectionName: label("Banks"),
      Description: label("A bank"),
      OwnershipType: "UserOwned",
      IsActivity: false,
      HasNotes: false,
      HasActivities: false,
      Attributes: [
        {
          "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata",
          AttributeType: "String",
          AttributeTypeName: { Value: "StringType" },
          SchemaName: "new_Name",
          DisplayName: label("Name"),
          IsPrimaryName: true,
          RequiredLevel: { Value: "None", CanBeChanged: true },
          FormatName: { Value: "Text" },
          MaxLength: 100,
        },
      ],
    },
  });
  assert.match(table, guid);
  const attribute = await api.createAttribute({
    entityKey: table,
    data: {
      "@odata.type": "Microsoft.Dynamics.CRM.MoneyAttributeMetadata",
      AttributeType: "Money",
      AttributeTypeName: { Value: "MoneyType" },
      SchemaName: "new_Balance",
      DisplayName: label("Balance"),
      RequiredLevel: { Value: "None" },
      PrecisionSource: 2,
    },
  });
  assert.match(attribute, guid);
  await api.createAttribute({
    entityKey: "LogicalName='new_bank'",
    data: {
      "@odata.type": "Microsoft.Dynamics.CRM.PicklistAttributeMetadata",
      AttributeType: "Picklist",
      AttributeTypeName: { Value: "PicklistType" },
      SchemaName: "new_Rating",
      DisplayName: label("Rating"),
      RequiredLevel: { Value: "None" },
      OptionSet: {
        "@odata.type": "Microsoft.Dynamics.CRM.OptionSetMetadata",
        IsGlobal: false,
        OptionSetType: "Picklist",
        Options: [
          { Value: 1, Label: label("Poor") },
          { Value: 2, Label: label("Good") },
        ],
      },
    },
  });
  const entity = await api.retrieveEntity({
    key: "LogicalName='new_bank'",
    select: ["LogicalName", "EntitySetName", "PrimaryIdAttribute", "PrimaryNameAttribute"],
    expand: [{ property: "Attributes", select: ["LogicalName", "AttributeType"] }],
  });
  assert.equal(entity.EntitySetName, "new_banks");
  assert.ok(entity.Attributes.some((one) => one.LogicalName === "new_balance" && one.AttributeType === "Money"));
  const rating = await api.retrieveAttribute({
    entityKey: "LogicalName='new_bank'",
    attributeKey: "LogicalName='new_rating'",
    castType: "Microsoft.Dynamics.CRM.PicklistAttributeMetadata",
    expand: [{ property: "OptionSet" }],
  });
  assert.deepEqual(rating.OptionSet.Options.map((option) => option.Value), [1, 2]);
  await api.createRelationship({
    data: {
      "@odata.type": "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata",
      SchemaName: "new_bank_account",
      ReferencedEntity: "new_bank",
      ReferencingEntity: "account",
      Lookup: {
        "@odata.type": "Microsoft.Dynamics.CRM.LookupAttributeMetadata",
        AttributeType: "Lookup",
        AttributeTypeName: { Value: "LookupType" },
        SchemaName: "new_BankId",
        DisplayName: label("Bank"),
        RequiredLevel: { Value: "None" },
      },
    },
  });
  const relations = await api.retrieveRelationships({
    castType: "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata",
    filter: "SchemaName eq 'new_bank_account'",
  });
  assert.equal(relations.value[0].ReferencingAttribute, "new_bankid");
  const bank = await api.create({ collection: "new_banks", data: { new_name: "First", new_balance: 12.34, new_rating: 2 } });
  await api.update({ collection: "accounts", key: account, data: { "new_BankId@odata.bind": `new_banks(${bank})` } });
  const row = await api.retrieve({
    collection: "accounts",
    key: account,
    select: ["name"],
    expand: [{ property: "new_BankId", select: ["new_name", "new_rating"] }],
  });
  assert.equal(row.new_BankId.new_name, "First");
  const choice = await api.createGlobalOptionSet({
    data: {
      "@odata.type": "Microsoft.Dynamics.CRM.OptionSetMetadata",
      Name: "new_colour",
      DisplayName: label("Colour"),
      IsGlobal: true,
      OptionSetType: "Picklist",
      Options: [{ Value: 727000000, Label: label("Red") }],
    },
  });
  assert.match(choice, guid);
  const back = await api.retrieveGlobalOptionSet({ key: "Name='new_colour'" });
  assert.equal(back.Options[0].Value, 727000000);
  const csdl = await api.retrieveCsdlMetadata();
  assert.match(csdl, /<EntityType Name="new_bank"/);
});

await flow("errors keep their code", async () => {
  await refused(api.retrieveMultiple({ collection: "accounts", filter: "nothing eq 1" }), 400, "0x80060888");
  await refused(api.retrieveMultiple({ collection: "nothings" }), 404);
  await refused(api.create({ collection: "accounts", data: { nothing: 1 } }), 400);
});
