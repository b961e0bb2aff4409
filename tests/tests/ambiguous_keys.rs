//! Two rows of one side with the same integration key: the first one keeps it, the second one is told of and stays out
//! of the way. Nothing of either is lost.

use dualwright_core::SystemKind;
use dualwright_tests::scenario::check_with;
use dualwright_tests::world::Settings;

/// Notes are told apart by their number on F&O, and by their name in the map: the key that the map should not have.
fn check(story: &str) {
    let table = |kind, json: &str| (kind, serde_json::from_str(json).expect("a table"));
    let tables = vec![
        table(
            SystemKind::Finops,
            r#"{"name": "Note", "set": "Notes", "entity": "Notes", "entityName": "NoteEntity", "key": ["dataAreaId", "NoteId"],
                "columns": [{"name": "dataAreaId", "type": "text", "maxLength": 4},
                    {"name": "NoteId", "type": "text", "maxLength": 10}, {"name": "Name", "type": "text", "maxLength": 20},
                    {"name": "Text", "type": "text", "maxLength": 60}]}"#,
        ),
        table(
            SystemKind::Dataverse,
            r#"{"name": "msdyn_note", "set": "msdyn_notes", "primaryId": "msdyn_noteid", "primaryName": "msdyn_name",
                "columns": [{"name": "msdyn_name", "type": "text", "maxLength": 20, "required": true},
                    {"name": "msdyn_number", "type": "text", "maxLength": 10}, {"name": "msdyn_text", "type": "text", "maxLength": 60},
                    {"name": "msdyn_company", "type": "lookup", "targets": [{"table": "cdm_company", "navigationProperty": "msdyn_company"}]}]}"#,
        ),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let map = folder.path().join("notes.json");
    let json = r#"{"name": "Notes", "legs": [{"sourceSchema": "Notes", "destinationSchema": "msdyn_notes", "sourceFilter": "",
        "reversedSourceFilter": "", "fieldMappings": [
            {"syncDirection": "3", "sourceField": "NAME", "destinationField": "msdyn_name"},
            {"syncDirection": "3", "sourceField": "NOTEID", "destinationField": "msdyn_number"},
            {"syncDirection": "3", "sourceField": "TEXT", "destinationField": "msdyn_text"}]}]}"#;
    std::fs::write(&map, json).expect("writes");
    let config = format!(
        "\n[[map]]\nslug = \"notes\"\nfile = {:?}\nintegration_key = [\"msdyn_company.cdm_companycode\", \"msdyn_name\"]\n",
        map.display().to_string()
    );
    let maps = vec!["companies".to_owned()];
    check_with(Settings { tables, config, maps, ..Settings::default() }, story);
}

#[test]
fn the_second_row_with_a_key_is_kept_as_failed_and_the_first_goes_on() {
    check(
        r"
        finops insert Notes dataAreaId=usmf,NoteId=1 Name=A Text=first
        finops insert Notes dataAreaId=usmf,NoteId=2 Name=A Text=second
        finops insert Notes dataAreaId=demf,NoteId=1 Name=A Text=elsewhere
        start
        failed notes 'usmf/a (usmf/2)' DW-1009
        dataverse expect msdyn_notes msdyn_name=A,msdyn_company=@cdm_companies/cdm_companycode=usmf msdyn_number=1 msdyn_text=first
        dataverse expect msdyn_notes msdyn_name=A,msdyn_company=@cdm_companies/cdm_companycode=demf msdyn_text=elsewhere
        # The owner of the key goes on as before.
        finops update Notes dataAreaId=usmf,NoteId=1 Text=again
        settle
        failed notes 'usmf/a (usmf/2)' DW-1009
        dataverse expect msdyn_notes msdyn_number=1,msdyn_text=again msdyn_name=A
        # A newer change of the other one takes the place of the older one in the error queue, and a retry changes nothing.
        finops update Notes dataAreaId=usmf,NoteId=2 Text=still
        settle
        retry notes 'usmf/a (usmf/2)'
        failed notes 'usmf/a (usmf/2)' DW-1009
        dataverse expect msdyn_notes msdyn_number=1,msdyn_text=again msdyn_name=A
        # The key is corrected.
        finops update Notes dataAreaId=usmf,NoteId=2 Name=B
        settle
        failed none
        dataverse expect msdyn_notes msdyn_name=B msdyn_number=2 msdyn_text=still
        ",
    );
}

#[test]
fn pages_of_an_initial_sync_that_run_together_do_not_share_a_key() {
    let rows = (1..=12)
        .map(|number| format!("finops insert Notes dataAreaId=usmf,NoteId={number} Name=A{} Text=x", number % 6));
    let rows = rows.collect::<Vec<_>>().join("\n");
    // Which of two pages is first is open.
    let failed = (0..6).map(|_| "failed notes * DW-1009").collect::<Vec<_>>().join("\n");
    let deleted = (1..=6)
        .map(|number| format!("finops delete Notes dataAreaId=usmf,NoteId={number}"))
        .collect::<Vec<_>>()
        .join("\n");
    check(&format!(
        "
        limit batch_rows_max = 1
        {rows}
        start
        {failed}
        dataverse writes 9
        {deleted}
        settle
        "
    ));
}

#[test]
fn a_key_that_is_free_again_goes_to_the_other_row() {
    check(
        r"
        start
        finops insert Notes dataAreaId=usmf,NoteId=1 Name=A Text=first
        finops insert Notes dataAreaId=usmf,NoteId=2 Name=A Text=second
        settle
        failed notes 'usmf/a (usmf/2)' DW-1009
        finops delete Notes dataAreaId=usmf,NoteId=1
        settle
        dataverse absent msdyn_notes msdyn_name=A
        retry notes 'usmf/a (usmf/2)'
        failed none
        dataverse expect msdyn_notes msdyn_name=A msdyn_number=2 msdyn_text=second
        # And one delivery may do both.
        finops delete Notes dataAreaId=usmf,NoteId=2
        finops insert Notes dataAreaId=usmf,NoteId=3 Name=A Text=third
        settle
        failed none
        dataverse expect msdyn_notes msdyn_name=A msdyn_number=3 msdyn_text=third
        ",
    );
}

#[test]
fn to_delete_the_second_row_leaves_the_first_alone() {
    check(
        r"
        finops insert Notes dataAreaId=usmf,NoteId=1 Name=A Text=first
        start
        finops insert Notes dataAreaId=usmf,NoteId=2 Name=A Text=second
        settle
        failed notes 'usmf/a (usmf/2)' DW-1009
        dataverse writes 4
        finops delete Notes dataAreaId=usmf,NoteId=2
        settle
        failed none
        dataverse writes 0
        dataverse expect msdyn_notes msdyn_name=A msdyn_number=1 msdyn_text=first
        ",
    );
}

#[test]
fn a_transaction_with_two_rows_of_one_key_falls_as_a_whole() {
    check(
        r"
        start
        dataverse writes 3
        finops transaction insert Notes dataAreaId=usmf,NoteId=1 Name=A Text=first ; insert Notes dataAreaId=usmf,NoteId=2 Name=A Text=second
        settle
        dataverse writes 0
        failed notes 'usmf/a (usmf/2)' DW-1009
        finops update Notes dataAreaId=usmf,NoteId=2 Name=B
        finops update Notes dataAreaId=usmf,NoteId=1 Text=again
        settle
        dataverse writes 2
        dataverse expect msdyn_notes msdyn_name=A msdyn_text=again
        dataverse expect msdyn_notes msdyn_name=B msdyn_text=second
        ",
    );
}

#[test]
fn two_dataverse_rows_with_one_key_are_told_apart_by_their_ids() {
    check(
        r"
        start
        dataverse insert msdyn_notes msdyn_number=1,msdyn_company=@cdm_companies/cdm_companycode=usmf msdyn_name=A msdyn_text=first
        settle
        dataverse insert msdyn_notes msdyn_number=2,msdyn_company=@cdm_companies/cdm_companycode=usmf msdyn_name=A msdyn_text=second
        settle
        failed notes * DW-1009
        finops expect Notes dataAreaId=usmf,NoteId=1 Text=first
        finops absent Notes dataAreaId=usmf,NoteId=2
        dataverse update msdyn_notes msdyn_number=1 msdyn_text=again
        dataverse update msdyn_notes msdyn_number=2 msdyn_text=still
        settle
        failed notes * DW-1009
        finops expect Notes dataAreaId=usmf,NoteId=1 Text=again
        dataverse update msdyn_notes msdyn_number=2 msdyn_name=B
        settle
        failed none
        finops expect Notes dataAreaId=usmf,NoteId=2 Name=B Text=still
        # Made anew: the row that had the key is gone.
        dataverse delete msdyn_notes msdyn_number=1
        dataverse insert msdyn_notes msdyn_number=1,msdyn_company=@cdm_companies/cdm_companycode=usmf msdyn_name=A msdyn_text=anew
        settle
        failed none
        finops expect Notes dataAreaId=usmf,NoteId=1 Text=anew
        ",
    );
}

#[test]
fn a_key_that_changes_on_one_side_is_refused() {
    check(
        r"
        finops insert Notes dataAreaId=usmf,NoteId=1 Name=A Text=first
        start
        dataverse update msdyn_notes msdyn_number=1 msdyn_name=B
        settle
        failed notes * DW-1010
        finops expect Notes dataAreaId=usmf,NoteId=1 Name=A
        dataverse update msdyn_notes msdyn_number=1 msdyn_name=A
        settle
        failed none
        finops update Notes dataAreaId=usmf,NoteId=1 Name=C
        settle
        failed notes 'usmf/c (usmf/1)' DW-1010
        dataverse expect msdyn_notes msdyn_number=1 msdyn_name=A
        finops update Notes dataAreaId=usmf,NoteId=1 Name=A
        settle
        failed none
        # What is no part of the integration key, but of the entity's own.
        dataverse update msdyn_notes msdyn_number=1 msdyn_number=9
        settle
        failed notes usmf/a DW-1010
        finops absent Notes dataAreaId=usmf,NoteId=9
        dataverse update msdyn_notes msdyn_number=9 msdyn_number=1 msdyn_text=back
        settle
        failed none
        finops expect Notes dataAreaId=usmf,NoteId=1 Text=back
        ",
    );
}
