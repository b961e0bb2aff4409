//! Data management over HTTP: packages out and in, executions by turns, error files, the blob storage.

mod common;

use std::io::{Cursor, Read, Write};

use common::System;
use dualwright_emulator::Dialect;
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;

const ACTIONS: &str = "DataManagementDefinitionGroups/Microsoft.Dynamics.DataEntities.";

/// A system on which executions wait for turns.
async fn started() -> System {
    let system = System::start(Dialect::Finops).await;
    system.emulator.hold_jobs(true);
    system
}

async fn call(system: &System, action: &str, body: Value) -> common::Reply {
    system.send("POST", &format!("{ACTIONS}{action}"), "Content-Type: application/json", &body.to_string()).await
}

/// The value of an action that must be accepted.
async fn value(system: &System, action: &str, body: Value) -> Value {
    let reply = call(system, action, body.clone()).await;
    assert_eq!(reply.status, 200, "{action} {body}: {}", reply.text);
    reply.json()["value"].clone()
}

async fn text(system: &System, action: &str, body: Value) -> String {
    value(system, action, body).await.as_str().expect("text").to_owned()
}

async fn status(system: &System, execution: &str) -> String {
    text(system, "GetExecutionSummaryStatus", json!({"executionId": execution})).await
}

fn turns(system: &System) -> usize {
    let mut count = 0;
    while system.emulator.turn().expect("turns") {
        count += 1;
        assert!(count < 1_000, "an execution does not end");
    }
    count
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("client")
}

async fn put(url: &str, body: Vec<u8>) -> u16 {
    let request = client().put(url).header("x-ms-blob-type", "BlockBlob").body(body);
    request.send().await.expect("an answer").status().as_u16()
}

async fn download(url: &str) -> Vec<u8> {
    let response = client().get(url).send().await.expect("an answer");
    assert_eq!(response.status(), 200, "{url}");
    response.bytes().await.expect("a body").to_vec()
}

/// Names and contents of the files of a package.
fn unpacked(package: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(Cursor::new(package)).expect("a zip file");
    (0..archive.len())
        .map(|at| {
            let mut file = archive.by_index(at).expect("a file");
            let mut content = Vec::new();
            file.read_to_end(&mut content).expect("reads");
            (file.name().expect("a name").into_owned(), content)
        })
        .collect()
}

fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        archive.start_file(*name, SimpleFileOptions::default()).expect("starts");
        archive.write_all(content).expect("writes");
    }
    archive.finish().expect("finishes").into_inner()
}

fn utf16(text: &str) -> Vec<u8> {
    let units = std::iter::once(0xfeff).chain(text.encode_utf16());
    units.flat_map(u16::to_le_bytes).collect()
}

fn text_of(bytes: &[u8]) -> String {
    assert_eq!(&bytes[..2], [0xff, 0xfe], "a byte order mark");
    let units = bytes[2..].chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect::<Vec<_>>();
    String::from_utf16(&units).expect("UTF-16")
}

const HEADER: &str = "<DataManagementPackageHeader \
    xmlns=\"http://schemas.microsoft.com/dynamics/2015/01/DataManagement\"><PackageVersion>2</PackageVersion>\
    </DataManagementPackageHeader>";

/// A manifest as an integrator writes it by hand.
fn manifest(entities: &[(&str, &str, &str, &[&str])]) -> String {
    let entities = entities.iter().map(|(entity, format, file, fields)| {
        let map = fields.iter().map(|field| {
            format!("<EntityMap><EntityField>{field}</EntityField><XMLField>{field}</XMLField></EntityMap>")
        });
        format!(
            "<DataManagementPackageEntityData><EntityMapList>{}</EntityMapList><EntityName>{entity}</EntityName>\
             <InputFilePath>{file}</InputFilePath><SourceFormat>{format}</SourceFormat></DataManagementPackageEntityData>",
            map.collect::<String>()
        )
    });
    format!(
        "<DataManagementPackageManifest xmlns=\"http://schemas.microsoft.com/dynamics/2015/01/DataManagement\">\
         <DefinitionGroupName>P</DefinitionGroupName><PackageEntityList>{}</PackageEntityList>\
         </DataManagementPackageManifest>",
        entities.collect::<String>()
    )
}

async fn upload(system: &System, package: Vec<u8>) -> String {
    let answer = text(system, "GetAzureWriteUrl", json!({"uniqueFileName": "up load.zip"})).await;
    let answer: Value = serde_json::from_str(&answer).expect("JSON in the text");
    let url = answer["BlobUrl"].as_str().expect("a link").to_owned();
    assert_eq!(put(&url, package).await, 201);
    url
}

fn import_of(url: &str) -> Value {
    json!({"packageUrl": url, "definitionGroupId": "P", "executionId": "", "execute": true, "overwrite": true,
           "legalEntityId": "USMF"})
}

/// Imports one file, and gives the execution.
async fn import(system: &System, entity: &str, format: &str, fields: &[&str], file: &[u8]) -> String {
    let manifest = manifest(&[(entity, format, "data.txt", fields)]);
    let files: &[(&str, &[u8])] =
        &[("Manifest.xml", manifest.as_bytes()), ("PackageHeader.xml", HEADER.as_bytes()), ("data.txt", file)];
    let url = upload(system, packed(files)).await;
    let execution = text(system, "ImportFromPackage", import_of(&url)).await;
    turns(system);
    execution
}

async fn export(system: &System, project: &str, company: &str) -> Vec<(String, Vec<u8>)> {
    let wanted = json!({"definitionGroupId": project, "packageName": "out", "executionId": "", "reExecute": false,
                        "legalEntityId": company});
    let execution = text(system, "ExportToPackage", wanted).await;
    turns(system);
    assert_eq!(status(system, &execution).await, "Succeeded");
    let url = text(system, "GetExportedPackageUrl", json!({"executionId": execution})).await;
    unpacked(&download(&url).await)
}

fn seed(system: &System, set: &str, rows: &[Value]) {
    let rows = rows.iter().map(|row| row.as_object().expect("a row").clone()).collect();
    system.emulator.seed(set, rows).expect("seeds");
}

#[tokio::test]
async fn an_export_moves_on_by_turns_and_keeps_to_its_company() {
    let system = started().await;
    for (company, group) in [("usmf", "0010"), ("usmf", "20"), ("dat", "30")] {
        seed(
            &system,
            "CustomerGroups",
            &[json!({"dataAreaId": company, "CustomerGroupId": group,
            "Description": "say \"hi\",\r\nbye", "IsPriceWithTax": "Yes", "Rate": 1.5, "Days": 7})],
        );
    }
    let wanted = json!({"definitionGroupId": "customer GROUPS", "packageName": "groups.zip", "executionId": "e1",
                        "reExecute": false, "legalEntityId": "USMF"});
    assert_eq!(text(&system, "ExportToPackage", wanted.clone()).await, "e1");
    let id = json!({"executionId": "e1"});
    let mut seen = vec![status(&system, "e1").await];
    assert_eq!(text(&system, "GetExportedPackageUrl", id.clone()).await, "", "there is no package yet");
    while system.emulator.turn().expect("turns") {
        seen.push(status(&system, "e1").await);
    }
    assert_eq!(seen, ["NotRun", "Executing", "Executing", "Succeeded"]);
    let again = call(&system, "ExportToPackage", wanted).await;
    assert!(again.status == 400 && again.text.contains("already exists"), "{}", again.text);

    let url = text(&system, "GetExportedPackageUrl", id).await;
    assert!(url.contains("/dmf/groups-") && url.contains("&sig="), "{url}");
    let files = unpacked(&download(&url).await);
    let names = files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["Manifest.xml", "PackageHeader.xml", "Customer groups.csv"]);
    assert_eq!(
        text_of(&files[2].1),
        "CUSTOMERGROUPID,DESCRIPTION,ISPRICEWITHTAX,RATE,DAYS,SINCE\r\n\
         0010,\"say \"\"hi\"\",\r\nbye\",Yes,1.5,7,1900-01-01 00:00:00\r\n\
         20,\"say \"\"hi\"\",\r\nbye\",Yes,1.5,7,1900-01-01 00:00:00\r\n"
    );
    let manifest = text_of(&files[0].1);
    for part in [
        "xmlns=\"http://schemas.microsoft.com/dynamics/2015/01/DataManagement\"",
        "<DefinitionGroupName>customer GROUPS</DefinitionGroupName>",
        "<EntityName>Customer groups</EntityName>",
        "<TargetEntity>CustCustomerGroupEntity</TargetEntity>",
        "<SourceFormat>CSV-Unicode</SourceFormat>",
        "<InputFilePath>Customer groups.csv</InputFilePath>",
        "<EntityField>ISPRICEWITHTAX</EntityField>",
    ] {
        assert!(manifest.contains(part), "{part}: {manifest}");
    }
    assert!(text_of(&files[1].1).contains("<PackageType>DefinitionGroup</PackageType>"));
}

#[tokio::test]
async fn good_records_are_applied_and_bad_ones_set_aside() {
    let system = started().await;
    seed(&system, "CustomerGroups", &[json!({"dataAreaId": "usmf", "CustomerGroupId": "10", "Days": 1})]);
    let fields = ["CUSTOMERGROUPID", "DESCRIPTION", "DAYS"];
    let file = utf16(
        "CUSTOMERGROUPID,DESCRIPTION,DAYS\r\n\
         10,changed,2\r\n\
         20,\"two\nlines\",\r\n\
         30,bad number,many\r\n\
         40,too few\r\n\
         01234567890,too long,4\r\n\
         50,a description that is longer than it may be,5\r\n\
         ,no key,6\r\n\
         \u{1F600},last,7\r\n",
    );
    let execution = import(&system, "Customer groups", "CSV-Unicode", &fields, &file).await;
    assert_eq!(status(&system, &execution).await, "PartiallySucceeded");
    let page = system.json("CustomerGroups?cross-company=true&$orderby=CustomerGroupId").await;
    let rows =
        page["value"].as_array().expect("rows").iter().map(|row| {
            format!("{} {} {} {}", row["dataAreaId"], row["CustomerGroupId"], row["Description"], row["Days"])
        });
    assert_eq!(
        rows.collect::<Vec<_>>(),
        [r#""usmf" "10" "changed" 2"#, r#""usmf" "20" "two\nlines" 0"#, "\"usmf\" \"\u{1F600}\" \"last\" 7",]
    );
    let errors = text(&system, "GetExecutionErrors", json!({"executionId": execution})).await;
    let errors: Vec<Value> = serde_json::from_str(&errors).expect("a list in the text");
    let shown = errors.iter().map(|error| {
        format!("{}|{}", error["RecordId"].as_str().expect("key"), error["Field"].as_str().expect("field"))
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        ["30|DAYS", "|", "01234567890|CUSTOMERGROUPID", "50|DESCRIPTION", "\"\"|CUSTOMERGROUPID"]
    );

    let of = json!({"executionId": execution, "entityName": "Customer groups"});
    let staging = text(&system, "GetImportStagingErrorFileUrl", of.clone()).await;
    assert_eq!(
        text_of(&download(&staging).await),
        "LINE,FIELD,MESSAGE,RECORD\r\n\
         5,DAYS,The value of field 'DAYS' cannot be converted to the type of the staging field.,\"30,bad number,many\"\r\n\
         6,,\"The record has 2 fields, and the header 3.\",\"40,too few\"\r\n"
    );
    assert_eq!(text(&system, "GetImportTargetErrorKeysFileUrl", of.clone()).await, "", "it was not generated");
    assert_eq!(value(&system, "GenerateImportTargetErrorKeysFile", of.clone()).await, true);
    let keys = text(&system, "GetImportTargetErrorKeysFileUrl", of).await;
    let keys = text_of(&download(&keys).await);
    let lines =
        keys.split("\r\n").map(|line| line.split(',').take(3).collect::<Vec<_>>().join(",")).collect::<Vec<_>>();
    assert_eq!(
        lines,
        ["LINE,KEYS,FIELD", "7,01234567890,CUSTOMERGROUPID", "8,50,DESCRIPTION", "9,\"\"\"\"\"\",CUSTOMERGROUPID", ""]
    );

    let path = format!("DataManagementExecutionJobDetails(JobId='{execution}',EntityName='Customer groups')");
    let job = system.json(&path).await;
    let count = |name: &str| job[name].as_i64().expect("a number");
    assert_eq!(
        (count("StagingRecordsCreatedCount"), count("TargetRecordsCreatedCount"), count("TargetRecordsUpdatedCount")),
        (6, 2, 1)
    );
    // Every record is a transaction of its own, seen by the audit and the feed like any write.
    let audit = system.emulator.audit().expect("audit");
    let transactions = audit.iter().map(|entry| &entry.transaction).collect::<std::collections::HashSet<_>>();
    assert_eq!((audit.len(), transactions.len()), (3, 3));
    assert_eq!(system.count("DualwrightChanges").await, 3);
}

#[tokio::test]
async fn whatever_stands_in_a_text_survives_both_ways() {
    let texts = [
        "plain",
        "007",
        "",
        "say \"hi\"",
        "\"",
        "\"\"",
        ",",
        "a,b",
        "\r\n",
        "one\r\ntwo",
        "lf\nonly",
        "cr\ronly",
        " lead",
        "tab\tin",
        "'quoted'",
        "semi;colon",
        "\u{fc}\u{df}\u{20ac}",
        "\u{1F469}\u{200d}\u{1F680}",
        "\u{5e9}\u{5dc}",
        "<a>&amp;</a>",
        "]]>",
        "null",
        "=1+1",
        "\u{feff}mark",
        "\u{1}control",
    ];
    for format in ["CSV-Unicode", "CSV", "XML-Element"] {
        let system = started().await;
        for (number, text) in texts.iter().enumerate() {
            let key = format!("{number:03}");
            seed(
                &system,
                "CustomerGroups",
                &[json!({"dataAreaId": "usmf", "CustomerGroupId": key, "Description": text})],
            );
        }
        let detail =
            "DataManagementDefinitionGroupDetails(DefinitionGroupId='Customer groups',EntityName='Customer groups')";
        let changed = system.send("PATCH", detail, "", &json!({"SourceFormat": format}).to_string()).await;
        assert_eq!(changed.status, 204, "{}", changed.text);
        let files = export(&system, "Customer groups", "usmf").await;

        let other = started().await;
        let files = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect::<Vec<_>>();
        let url = upload(&other, packed(&files)).await;
        let execution = text(&other, "ImportFromPackageAsync", import_of(&url)).await;
        turns(&other);
        let errors = text(&other, "GetExecutionErrors", json!({"executionId": execution})).await;
        assert_eq!((status(&other, &execution).await.as_str(), errors.as_str()), ("Succeeded", "[]"), "{format}");
        let rows = |system: &System| {
            let rows = system.emulator.rows("CustomerGroups").expect("rows");
            rows.into_iter()
                .map(|mut row| {
                    row.remove("@odata.etag");
                    row
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(&other), rows(&system), "{format}");
        assert_eq!(rows(&other).len(), texts.len());
    }
}

#[tokio::test]
async fn any_texts_round_trip_through_a_package() {
    // Texts from a seed: letters that matter to a reader of the file, and letters from everywhere.
    let alphabet =
        ['a', ',', '"', '\r', '\n', ' ', ';', '\t', '0', '\u{e9}', '\u{4e2d}', '\u{1F600}', '\u{ffff}', '\u{0}'];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0)
    };
    let system = started().await;
    let rows = (0..500)
        .map(|number| {
            let text = (0..next() % 20).map(|_| alphabet[next() % alphabet.len()]).collect::<String>();
            json!({"dataAreaId": "usmf", "CustomerGroupId": number.to_string(), "Description": text})
        })
        .collect::<Vec<_>>();
    seed(&system, "CustomerGroups", &rows);
    let before = system.emulator.rows("CustomerGroups").expect("rows");
    let files = export(&system, "Customer groups", "usmf").await;
    // Every row is made different, so that the import has to bring everything back.
    let other = rows.iter().map(|row| {
        json!({"dataAreaId": "usmf", "CustomerGroupId": row["CustomerGroupId"],
        "Description": "something else"})
    });
    seed(&system, "CustomerGroups", &other.collect::<Vec<_>>());
    let files = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect::<Vec<_>>();
    let url = upload(&system, packed(&files)).await;
    let execution = text(&system, "ImportFromPackage", import_of(&url)).await;
    turns(&system);
    assert_eq!(status(&system, &execution).await, "Succeeded");
    let after = system.emulator.rows("CustomerGroups").expect("rows");
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before["Description"], after["Description"], "{}", before["CustomerGroupId"]);
    }
    assert_eq!(before.len(), after.len());
}

#[tokio::test]
async fn packages_that_cannot_be_imported_are_refused_or_fail() {
    let system = started().await;
    let good = manifest(&[("Customer groups", "CSV-Unicode", "a.csv", &["CUSTOMERGROUPID"])]);
    let data = utf16("CUSTOMERGROUPID\r\n10\r\n");
    let with = |manifest: &str| {
        packed(&[("Manifest.xml", manifest.as_bytes()), ("PackageHeader.xml", HEADER.as_bytes()), ("a.csv", &data)])
    };
    let whole = with(&good);
    for (package, says) in [
        (b"no zip".to_vec(), "not a valid zip file"),
        (whole[..whole.len() / 2].to_vec(), "not a valid zip file"),
        (packed(&[("PackageHeader.xml", HEADER.as_bytes())]), "does not contain the file 'Manifest.xml'"),
        (packed(&[("Manifest.xml", good.as_bytes())]), "does not contain the file 'PackageHeader.xml'"),
        (packed(&[("../Manifest.xml", good.as_bytes())]), "invalid name '../Manifest.xml'"),
        (with("<a>"), "'Manifest.xml' of the data package is not valid"),
        (with("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>"), "DTD is prohibited"),
        (with(&good.replace("a.csv", "b.csv")), "does not contain the file 'b.csv'"),
        (
            with(&good.replace("Customer groups", "CustomerGroups")),
            "Entity CustomerGroups does not exist in the target",
        ),
        (
            with(&good.replace(">CUSTOMERGROUPID<", ">NOSUCH<")),
            "mapping is incorrect for entity Customer groups and field",
        ),
        (with(&good.replace("CSV-Unicode", "EXCEL")), "source data format EXCEL"),
    ] {
        let url = upload(&system, package).await;
        let refused = call(&system, "ImportFromPackage", import_of(&url)).await;
        assert!(refused.status == 400 && refused.text.contains(says), "{says}: {} {}", refused.status, refused.text);
        // The asynchronous action answers first; the execution tells.
        let execution = text(&system, "ImportFromPackageAsync", import_of(&url)).await;
        turns(&system);
        assert_eq!(status(&system, &execution).await, "Failed", "{says}");
        let errors = text(&system, "GetExecutionErrors", json!({"executionId": execution})).await;
        assert!(errors.contains(says), "{says}: {errors}");
    }
    for (file, says) in [
        (b"CUSTOMERGROUPID\r\n10\r\n".to_vec(), "Selected file is not Unicode"),
        (utf16("\"CUSTOMERGROUPID\r\n10\r\n"), "header of the file cannot be read"),
    ] {
        let execution = import(&system, "Customer groups", "CSV-Unicode", &["CUSTOMERGROUPID"], &file).await;
        assert_eq!(status(&system, &execution).await, "Failed");
        let errors = text(&system, "GetExecutionErrors", json!({"executionId": execution})).await;
        assert!(errors.contains(says), "{says}: {errors}");
    }
    assert_eq!(system.count("CustomerGroups").await, 0);
}

#[tokio::test]
async fn calls_are_checked_as_documented() {
    let system = started().await;
    for (action, body, status, says) in [
        (
            "ExportToPackage",
            json!({"definitionGroupId": "None", "packageName": "p", "reExecute": true}),
            400,
            "does not exist",
        ),
        ("ExportToPackage", json!({"packageName": "p", "reExecute": true}), 400, "definitionGroupId"),
        ("ExportToPackage", json!({"definitionGroupId": "Currencies"}), 400, "missing parameters are: reExecute"),
        ("ExportToPackage", json!({"definitionGroupId": 1, "reExecute": true}), 400, "expected type 'Edm.String'"),
        (
            "ExportToPackage",
            json!({"definitionGroupID": "", "reExecute": true}),
            400,
            "not a valid parameter for the operation",
        ),
        ("ImportFromPackage", json!({"packageUrl": ""}), 400, "execute, overwrite"),
        ("ImportFromPackage", import_of("https://elsewhere.example/dmf/none.zip?sig=1"), 400, "no data package at"),
        ("ImportFromPackageAsync", import_of("file:///etc/passwd"), 400, "no data package at"),
        ("GetAzureWriteUrl", json!({}), 400, "uniqueFileName"),
        ("GetExecutionSummaryStatus", json!({"executionId": "none"}), 400, "were not found"),
        ("GetExecutionErrors", json!({"executionId": "none"}), 400, "were not found"),
        ("GetExportedPackageUrl", json!({"executionId": "none"}), 400, "were not found"),
        (
            "GetImportStagingErrorFileUrl",
            json!({"executionId": "none", "entityName": "Currencies"}),
            400,
            "were not found",
        ),
        ("InitializeDataManagement", json!({}), 204, ""),
        ("NoSuchAction", json!({}), 404, "No HTTP resource"),
    ] {
        let reply = call(&system, action, body.clone()).await;
        assert!(
            reply.status == status && reply.text.contains(says),
            "{action} {body}: {} {}",
            reply.status,
            reply.text
        );
    }
    let get = system.get(&format!("{ACTIONS}GetExecutionErrors")).await;
    assert_eq!(get.status, 404);
    let broken = system.send("POST", &format!("{ACTIONS}GetExecutionErrors"), "", "{").await;
    assert_eq!(broken.status, 400);
}

#[tokio::test]
async fn imports_of_one_project_wait_for_each_other() {
    let system = started().await;
    let manifest = manifest(&[("Currencies", "CSV", "c.csv", &[])]);
    let files: &[(&str, &[u8])] = &[
        ("Manifest.xml", manifest.as_bytes()),
        ("PackageHeader.xml", HEADER.as_bytes()),
        ("c.csv", b"currencycode,name,comment\nEUR,Euro,not a field\nUSD,Dollar,\n"),
    ];
    let url = upload(&system, packed(files)).await;
    let first = text(&system, "ImportFromPackage", import_of(&url)).await;
    let second = call(&system, "ImportFromPackage", import_of(&url)).await;
    assert!(second.status == 400 && second.text.contains("in parallel"), "{}", second.text);
    let third = text(&system, "ImportFromPackageAsync", import_of(&url)).await;
    let canceled = text(&system, "ImportFromPackageAsync", import_of(&url)).await;
    let cancel = json!({"executionId": canceled}).to_string();
    assert_eq!(system.send("POST", "/_emulator/cancel-execution", "", &cancel).await.status, 204);
    assert_eq!(system.send("POST", "/_emulator/cancel-execution", "", &cancel).await.status, 400);
    while system.send("POST", "/_emulator/turn", "", "").await.json()["moved"] == true {}
    for (execution, wanted) in [(&first, "Succeeded"), (&third, "Succeeded"), (&canceled, "Canceled")] {
        assert_eq!(status(&system, execution).await, wanted);
    }
    let page = system.get("Currencies?$orderby=CurrencyCode").await;
    assert_eq!(page.column("Name"), ["Euro", "Dollar"]);
    let staged_only = json!({"packageUrl": url, "definitionGroupId": "P", "execute": false, "overwrite": false});
    let before = system.emulator.audit().expect("audit").len();
    let execution = text(&system, "ImportFromPackage", staged_only).await;
    turns(&system);
    assert_eq!(status(&system, &execution).await, "Succeeded");
    assert_eq!(system.emulator.audit().expect("audit").len(), before, "the target step was not wanted");
}

#[tokio::test]
async fn executions_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.sqlite");
    let system = System::start_on(Dialect::Finops, Some(&path)).await;
    system.emulator.hold_jobs(true);
    let wanted = |id: &str| {
        json!({"definitionGroupId": "Currencies", "packageName": "p", "executionId": id, "reExecute": false,
               "legalEntityId": ""})
    };
    text(&system, "ExportToPackage", wanted("under way")).await;
    text(&system, "ExportToPackage", wanted("waiting")).await;
    assert!(system.emulator.turn().expect("turns"));
    assert_eq!(status(&system, "under way").await, "Executing");
    system.end().await;

    let system = System::start_on(Dialect::Finops, Some(&path)).await;
    assert_eq!(status(&system, "under way").await, "Failed");
    let errors = text(&system, "GetExecutionErrors", json!({"executionId": "under way"})).await;
    assert!(errors.contains("interrupted by a restart"), "{errors}");
    // This one runs by itself; there is nothing to wait for but its end.
    let mut polls = 0;
    while status(&system, "waiting").await != "Succeeded" {
        polls += 1;
        assert!(polls < 10_000, "the execution does not end");
        tokio::task::yield_now().await;
    }
    system.end().await;
}

#[tokio::test]
async fn blobs_are_kept_as_azure_storage_keeps_them() {
    let system = started().await;
    let answer = text(&system, "GetAzureWriteUrl", json!({"uniqueFileName": "a b/\u{fc}.zip"})).await;
    let url: Value = serde_json::from_str(&answer).expect("JSON");
    let url = url["BlobUrl"].as_str().expect("a link").to_owned();
    let send = |method: &str, url: String, headers: &'static [(&'static str, &'static str)], body: &'static str| {
        let mut request = client().request(method.parse().expect("a method"), url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        async move {
            let response = request.send().await.expect("an answer");
            let status = response.status().as_u16();
            let code =
                response.headers().get("x-ms-error-code").map_or("", |code| code.to_str().expect("text")).to_owned();
            (status, code, response.text().await.expect("a body"))
        }
    };
    let block = &[("x-ms-blob-type", "BlockBlob")];
    for (method, url, headers, body, status, says) in [
        ("GET", url.clone(), &[] as &[_], "", 404, "BlobNotFound"),
        ("PUT", url.clone(), &[], "x", 400, "MissingRequiredHeader"),
        ("PUT", url.clone(), &[("x-ms-blob-type", "AppendBlob")], "x", 400, "InvalidHeaderValue"),
        ("PUT", url.replace("&sig=", "&sig=0"), block, "x", 403, "AuthenticationFailed"),
        ("PUT", url.split('?').next().expect("a path").to_owned(), block, "x", 403, "AuthenticationFailed"),
        ("PUT", url.clone(), block, "hello world", 201, ""),
        ("GET", url.clone(), &[], "", 200, "hello world"),
        ("GET", url.clone(), &[("x-ms-range", "bytes=6-")], "", 206, "world"),
        ("GET", url.clone(), &[("Range", "bytes=0-4")], "", 206, "hello"),
        ("GET", url.clone(), &[("Range", "bytes=99-")], "", 416, "InvalidRange"),
        ("PUT", format!("{url}&comp=block&blockid=MQ%3D%3D"), &[], "one ", 201, ""),
        ("PUT", format!("{url}&comp=block&blockid=Mg%3D%3D"), &[], "two", 201, ""),
        (
            "PUT",
            format!("{url}&comp=blocklist"),
            &[],
            "<BlockList><Latest>no</Latest></BlockList>",
            400,
            "InvalidBlockList",
        ),
        ("PUT", format!("{url}&comp=blocklist"), &[], "<BlockList>", 400, "InvalidXmlDocument"),
        ("GET", url.clone(), &[], "", 200, "hello world"),
        (
            "PUT",
            format!("{url}&comp=blocklist"),
            &[],
            "<BlockList><Latest>MQ==</Latest><Latest>Mg==</Latest></BlockList>",
            201,
            "",
        ),
        ("GET", url.clone(), &[], "", 200, "one two"),
        ("DELETE", url.clone(), &[], "", 405, "UnsupportedHttpVerb"),
    ] {
        let (found, code, text) = send(method, url.clone(), headers, body).await;
        assert_eq!(found, status, "{method} {url} {body}: {text}");
        assert!(code == says || text.contains(says), "{method} {url}: {code} {text}");
    }
}

#[tokio::test]
async fn a_tracked_entity_is_exported_by_what_changed() {
    let system = started().await;
    let group = |group: &str| json!({"dataAreaId": "usmf", "CustomerGroupId": group, "Description": "d"}).to_string();
    for key in ["1", "2", "3"] {
        system.create("CustomerGroups", &group(key)).await;
    }
    let row = |key: &str| format!("CustomerGroups(dataAreaId='usmf',CustomerGroupId='{key}')?cross-company=true");
    let change = |key: &'static str, body: &'static str| {
        let (system, path) = (&system, row(key));
        async move { assert_eq!(system.send("PATCH", &path, "", body).await.status, 204) }
    };
    let keys = || async {
        let files = export(&system, "Customer groups", "usmf").await;
        let lines = text_of(&files[2].1);
        lines
            .lines()
            .skip(1)
            .map(|line| line.split(',').next().expect("a key").to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let track = |settings: Value| {
        let system = &system;
        async move { system.send("PUT", "/_emulator/change-tracking", "", &settings.to_string()).await.status }
    };
    assert_eq!(keys().await, "1 2 3");
    assert_eq!(keys().await, "1 2 3", "nothing is tracked");

    assert_eq!(track(json!({"entity": "customer groups", "mode": "entireEntity"})).await, 204);
    assert_eq!(keys().await, "1 2 3", "the first one brings all");
    assert_eq!(keys().await, "");
    change("2", r#"{"Days": 5}"#).await;
    system.create("CustomerGroups", &group("4")).await;
    assert_eq!(system.send("DELETE", &row("1"), "", "").await.status, 204);
    assert_eq!(keys().await, "2 4", "a package tells of no deletion");
    assert_eq!(keys().await, "");
    let preview = json!({"definitionGroupId": "Customer groups", "packageName": "p", "executionId": "", "reExecute": false,
                         "legalEntityId": "usmf", "count": "1"});
    change("3", r#"{"Days": 5}"#).await;
    text(&system, "ExportToPackagePreview", preview).await;
    turns(&system);
    assert_eq!(keys().await, "3", "a preview does not count");
    let token = json!({"definitionGroupId": "Customer groups", "entityName": "Customer groups", "sourceName": ""});
    assert_eq!(value(&system, "ResetVersionToken", token).await, true);
    assert_eq!(keys().await, "2 3 4");

    let fields = json!({"entity": "Customer groups", "mode": "primaryTable", "fields": ["DESCRIPTION"]});
    assert_eq!(track(fields).await, 204);
    assert_eq!(keys().await, "2 3 4");
    change("2", r#"{"Days": 6}"#).await;
    change("3", r#"{"Description": "other"}"#).await;
    change("4", r#"{"Description": "d", "Days": 7}"#).await;
    system.create("CustomerGroups", &group("5")).await;
    assert_eq!(keys().await, "3 5", "only what is tracked counts");
    for (settings, status) in [
        (json!({"entity": "Customer groups", "mode": "customQuery", "fields": ["NoSuch"]}), 400),
        (json!({"entity": "CustomerGroups", "mode": "entireEntity"}), 400),
        (json!({"entity": "Customer groups", "mode": "sometimes"}), 400),
        (json!({"entity": "Customer groups", "mode": "none"}), 204),
    ] {
        assert_eq!(track(settings.clone()).await, status, "{settings}");
    }
    assert_eq!(keys().await, "2 3 4 5");
}

#[tokio::test]
async fn recurring_jobs_take_files_in_and_give_packages_out() {
    let system = started().await;
    let id = "6d31e09f-0249-459f-94f0-aad9c2c47b64";
    let job = json!({"id": id, "project": "Customer groups", "legalEntity": "usmf"}).to_string();
    assert_eq!(system.send("PUT", "/_emulator/recurring-jobs", "", &job).await.status, 204);
    let queue = |service: &str| format!("/api/connector/{service}/%7B{}%7D", id.to_uppercase());
    for (method, path, status) in [
        ("POST", "/api/connector/enqueue/none?entity=Customer%20groups".to_owned(), 400),
        ("POST", format!("/api/connector/enqueue/{}?entity=Customer%20groups", common::id(1)), 400),
        ("POST", format!("{}?entity=Vendors", queue("enqueue")), 400),
        ("POST", format!("{}?entity=Currencies", queue("enqueue")), 400),
        ("GET", queue("enqueue"), 405),
        ("GET", queue("nothing"), 404),
        ("POST", queue("ack"), 400),
        ("GET", queue("dequeue"), 204),
    ] {
        let reply = system.send(method, &path, "", "").await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text);
    }
    let put_in = |body: Vec<u8>| {
        let url = format!("{}{}?entity=Customer%20groups", system.base, queue("enqueue"));
        async move {
            let response = client().post(url).body(body).send().await.expect("an answer");
            assert_eq!(response.status(), 200);
            response.text().await.expect("an id")
        }
    };
    let good = put_in(utf16("CUSTOMERGROUPID,DAYS\r\n10,1\r\n")).await;
    let partly = put_in(utf16("CUSTOMERGROUPID,DAYS\r\n20,2\r\n30,many\r\n")).await;
    let bad = put_in(b"not unicode".to_vec()).await;
    let message = |id: &str| {
        let id = json!({"messageId": id});
        let system = &system;
        async move { text(system, "GetMessageStatus", id).await }
    };
    assert_eq!(message(&good).await, "Enqueued");
    system.emulator.turn().expect("turns");
    assert_eq!(message(&good).await, "Processing");
    turns(&system);
    for (id, wanted) in [(&good, "Processed"), (&partly, "ProcessedWithErrors"), (&bad, "ProcessedWithErrors")] {
        assert_eq!(message(id).await, wanted);
    }
    let execution = text(&system, "GetExecutionIdByMessageId", json!({"_messageId": partly})).await;
    assert_eq!(status(&system, &execution).await, "PartiallySucceeded");
    assert_eq!(call(&system, "GetMessageStatus", json!({"messageId": "none"})).await.status, 400);
    let keys = system.get("CustomerGroups?cross-company=true&$select=CustomerGroupId").await;
    assert_eq!(keys.column("CustomerGroupId"), ["10", "20"]);

    let run = system.send("POST", "/_emulator/recurring-jobs/run", "", &json!({"id": id}).to_string()).await.json();
    let export = run["messageId"].as_str().expect("a message").to_owned();
    assert_eq!(system.get(&queue("dequeue")).await.status, 204, "it is not there yet");
    turns(&system);
    let taken = system.get(&queue("dequeue")).await.json();
    assert_eq!((&taken["CorrelationId"], &taken["LastDequeueDateTime"]), (&json!(export), &Value::Null));
    let files = unpacked(&download(taken["DownloadLocation"].as_str().expect("a link")).await);
    assert!(text_of(&files[2].1).contains("\r\n20,"), "{files:?}");
    assert_eq!(message(&export).await, "Dequeued");
    assert_eq!(system.get(&queue("dequeue")).await.status, 204, "it is hidden");
    system.emulator.clock().advance(std::time::Duration::from_secs(30 * 60));
    let again = system.get(&queue("dequeue")).await.json();
    assert_eq!(again["CorrelationId"], taken["CorrelationId"], "it was not acknowledged");
    assert!(again["LastDequeueDateTime"].is_string());
    let old = system.send("POST", &queue("ack"), "", &taken.to_string()).await;
    assert_eq!(old.status, 400, "that receipt is no longer good");
    assert_eq!(system.send("POST", &queue("ack"), "", &again.to_string()).await.status, 200);
    assert_eq!(message(&export).await, "Acked");
    system.emulator.clock().advance(std::time::Duration::from_secs(30 * 60));
    assert_eq!(system.get(&queue("dequeue")).await.status, 204);
}
