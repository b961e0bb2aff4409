//! Lookups of every shape, and what becomes of a row whose lookup leads to no row. The language is that of
//! [`dualwright_tests::scenario`].

use dualwright_core::SystemKind;
use dualwright_emulator::TableDefinition;
use dualwright_tests::scenario::check_with;
use dualwright_tests::world::Settings;

/// People belong to teams, and each team has a leader: a circle. Each person may have a boss: a circle of one table.
/// Places are told apart by their name and that of their region; notes are about a person or a team.
const FINOPS: &[&str] = &[
    r#"{"name": "Person", "set": "People", "entity": "People", "entityName": "PersonEntity", "key": ["dataAreaId", "PersonId"],
        "columns": [{"name": "dataAreaId", "type": "text", "maxLength": 4}, {"name": "PersonId", "type": "text", "maxLength": 10},
            {"name": "Name", "type": "text", "maxLength": 60}, {"name": "TeamId", "type": "text", "maxLength": 60},
            {"name": "BossId", "type": "text", "maxLength": 10}, {"name": "PlaceName", "type": "text", "maxLength": 60},
            {"name": "RegionName", "type": "text", "maxLength": 60}]}"#,
    r#"{"name": "Team", "set": "Teams", "entity": "Teams", "entityName": "TeamEntity", "key": ["dataAreaId", "TeamId"],
        "columns": [{"name": "dataAreaId", "type": "text", "maxLength": 4}, {"name": "TeamId", "type": "text", "maxLength": 60},
            {"name": "Title", "type": "text", "maxLength": 60}, {"name": "LeaderId", "type": "text", "maxLength": 10}]}"#,
    r#"{"name": "Region", "set": "Regions", "entity": "Regions", "entityName": "RegionEntity", "key": ["Name"],
        "columns": [{"name": "Name", "type": "text", "maxLength": 60}]}"#,
    r#"{"name": "Place", "set": "Places", "entity": "Places", "entityName": "PlaceEntity", "key": ["RegionName", "Name"],
        "columns": [{"name": "RegionName", "type": "text", "maxLength": 60}, {"name": "Name", "type": "text", "maxLength": 60},
            {"name": "Title", "type": "text", "maxLength": 60}]}"#,
    r#"{"name": "Note", "set": "Notes", "entity": "Notes", "entityName": "NoteEntity", "key": ["dataAreaId", "NoteId"],
        "columns": [{"name": "dataAreaId", "type": "text", "maxLength": 4}, {"name": "NoteId", "type": "text", "maxLength": 10},
            {"name": "AboutId", "type": "text", "maxLength": 60}, {"name": "RegionName", "type": "text", "maxLength": 60}]}"#,
];

const DATAVERSE: &[&str] = &[
    r#"{"name": "x_person", "set": "x_people", "primaryId": "x_personid", "primaryName": "x_number",
        "alternateKeys": [{"name": "person", "columns": ["x_company", "x_number"]}],
        "columns": [{"name": "x_company", "type": "lookup", "targets": [{"table": "cdm_company", "navigationProperty": "x_company"}]},
            {"name": "x_number", "type": "text", "maxLength": 10}, {"name": "x_name", "type": "text", "maxLength": 60},
            {"name": "x_team", "type": "lookup", "targets": [{"table": "x_team", "navigationProperty": "x_team"}]},
            {"name": "x_boss", "type": "lookup", "targets": [{"table": "x_person", "navigationProperty": "x_boss"}]},
            {"name": "x_place", "type": "lookup", "targets": [{"table": "x_place", "navigationProperty": "x_place"}]}]}"#,
    r#"{"name": "x_team", "set": "x_teams", "primaryId": "x_teamid", "primaryName": "x_number",
        "alternateKeys": [{"name": "team", "columns": ["x_company", "x_number"]}],
        "columns": [{"name": "x_company", "type": "lookup", "targets": [{"table": "cdm_company", "navigationProperty": "x_company"}]},
            {"name": "x_number", "type": "text", "maxLength": 20}, {"name": "x_title", "type": "text", "maxLength": 60, "required": true},
            {"name": "x_leader", "type": "lookup", "targets": [{"table": "x_person", "navigationProperty": "x_leader"}]}]}"#,
    r#"{"name": "x_region", "set": "x_regions", "primaryId": "x_regionid", "primaryName": "x_name",
        "alternateKeys": [{"name": "region", "columns": ["x_name"]}],
        "columns": [{"name": "x_name", "type": "text", "maxLength": 60}]}"#,
    r#"{"name": "x_place", "set": "x_places", "primaryId": "x_placeid", "primaryName": "x_name",
        "alternateKeys": [{"name": "place", "columns": ["x_region", "x_name"]}],
        "columns": [{"name": "x_name", "type": "text", "maxLength": 60}, {"name": "x_title", "type": "text", "maxLength": 60},
            {"name": "x_region", "type": "lookup", "targets": [{"table": "x_region", "navigationProperty": "x_region"}]}]}"#,
    r#"{"name": "x_note", "set": "x_notes", "primaryId": "x_noteid", "primaryName": "x_number",
        "alternateKeys": [{"name": "note", "columns": ["x_company", "x_number"]}],
        "columns": [{"name": "x_company", "type": "lookup", "targets": [{"table": "cdm_company", "navigationProperty": "x_company"}]},
            {"name": "x_number", "type": "text", "maxLength": 10},
            {"name": "x_about", "type": "lookup", "targets": [{"table": "x_person", "navigationProperty": "x_about_person"},
                {"table": "x_team", "navigationProperty": "x_about_team"}]}]}"#,
];

/// Slug, entity, set, key, and the fields as `F&O=path` or `F&O>path`.
type Map<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [&'a str]);

const MAPS: &[Map<'static>] = &[
    (
        "people",
        "People",
        "x_people",
        r#"["x_company.cdm_companycode", "x_number"]"#,
        &[
            "PERSONID=x_number",
            "NAME=x_name",
            "TEAMID=x_team.x_number",
            "BOSSID=x_boss.x_number",
            "PLACENAME=x_place.x_name",
            "REGIONNAME=x_place.x_region.x_name",
        ],
    ),
    (
        "teams",
        "Teams",
        "x_teams",
        r#"["x_company.cdm_companycode", "x_number"]"#,
        &["TEAMID=x_number", "TITLE=x_title", "LEADERID=x_leader.x_number"],
    ),
    ("regions", "Regions", "x_regions", r#"["x_name"]"#, &["NAME=x_name"]),
    (
        "places",
        "Places",
        "x_places",
        r#"["x_name", "x_region.x_name"]"#,
        &["NAME=x_name", "REGIONNAME=x_region.x_name", "TITLE=x_title"],
    ),
    (
        "notes",
        "Notes",
        "x_notes",
        r#"["x_company.cdm_companycode", "x_number"]"#,
        &["NOTEID=x_number", "ABOUTID=x_about.x_person(x_number).x_team(x_number)"],
    ),
];

/// Tells a story about these maps; each rule is a slug and a line of that map.
fn check(rules: &[(&str, &str)], story: &str) {
    check_maps(MAPS, &[], rules, story);
}

/// The same about other maps, and more tables.
fn check_maps(maps: &[Map<'_>], more: &[(SystemKind, String)], rules: &[(&str, &str)], story: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = String::new();
    for (slug, entity, set, key, fields) in maps {
        let file = folder.path().join(format!("{slug}.json"));
        let fields = fields.iter().map(|field| {
            let both = field.contains('=');
            let (finops, dataverse) = field.split_once(['=', '>']).expect("a field");
            format!(
                r#"{{"syncDirection": "{}", "sourceField": "{finops}", "destinationField": "{dataverse}"}}"#,
                if both { 3 } else { 1 }
            )
        });
        let map = format!(
            r#"{{"name": "{entity}", "legs": [{{"sourceSchema": "{entity}", "destinationSchema": "{set}", "sourceFilter": "",
                "reversedSourceFilter": "", "fieldMappings": [{}]}}]}}"#,
            fields.collect::<Vec<_>>().join(",")
        );
        std::fs::write(&file, map).expect("writes");
        config.push_str(&format!(
            "\n[[map]]\nslug = \"{slug}\"\nfile = {:?}\nintegration_key = {key}\n",
            file.display().to_string()
        ));
        for (_, line) in rules.iter().filter(|(own, _)| own == slug) {
            config.push_str(line);
            config.push('\n');
        }
    }
    let read = |kind, text: &str| (kind, serde_json::from_str::<TableDefinition>(text).expect("a table"));
    let mut tables = FINOPS.iter().map(|text| read(SystemKind::Finops, text)).collect::<Vec<_>>();
    tables.extend(DATAVERSE.iter().map(|text| read(SystemKind::Dataverse, text)));
    tables.extend(more.iter().map(|(kind, text)| read(*kind, text)));
    let maps = vec!["companies".to_owned()];
    check_with(Settings { tables, config, maps, ..Settings::default() }, story);
}

#[test]
fn a_lookup_of_one_hop_finds_its_row_and_names_it_back() {
    check(
        &[],
        r"
        finops insert Teams dataAreaId=usmf,TeamId=T1 Title=One
        finops insert People dataAreaId=usmf,PersonId=P1 Name=Ann TeamId=T1
        start
        dataverse expect x_people x_number=P1 x_team=@x_teams/x_number=T1
        dataverse insert x_teams x_number=T2,x_company=@cdm_companies/cdm_companycode=usmf x_title=Two
        dataverse update x_people x_number=P1 x_team=@x_teams/x_number=T2
        settle
        finops expect People dataAreaId=usmf,PersonId=P1 TeamId=T2
        failed none
        ",
    );
}

#[test]
fn a_composite_lookup_of_two_hops_finds_the_one_row_and_names_it_back() {
    check(
        &[],
        r"
        finops insert Regions Name=North
        finops insert Regions Name=South
        finops insert Places RegionName=North,Name=Springfield Title=Upper
        finops insert Places RegionName=South,Name=Springfield Title=Lower
        finops insert People dataAreaId=usmf,PersonId=P1 Name=Ann PlaceName=Springfield RegionName=South
        start
        dataverse expect x_people x_number=P1 x_place=@x_places/x_title=Lower
        dataverse update x_people x_number=P1 x_place=@x_places/x_title=Upper
        settle
        finops expect People dataAreaId=usmf,PersonId=P1 PlaceName=Springfield RegionName=North
        failed none
        ",
    );
}

#[test]
fn a_polymorphic_lookup_leads_to_the_table_that_has_the_row() {
    check(
        &[],
        r"
        finops insert Teams dataAreaId=usmf,TeamId=T1 Title=One
        finops insert People dataAreaId=usmf,PersonId=P1 Name=Ann
        finops insert Notes dataAreaId=usmf,NoteId=N1 AboutId=T1
        finops insert Notes dataAreaId=usmf,NoteId=N2 AboutId=P1
        start
        dataverse expect x_notes x_number=N1 x_about=@x_teams/x_number=T1
        dataverse expect x_notes x_number=N2 x_about=@x_people/x_number=P1
        dataverse update x_notes x_number=N1 x_about=@x_people/x_number=P1
        settle
        finops expect Notes dataAreaId=usmf,NoteId=N1 AboutId=P1
        failed none
        ",
    );
}

/// In one delivery and in several, a row that refers to itself, two that refer to each other, and a long chain.
#[test]
fn rows_of_one_table_refer_to_each_other() {
    let rows = r"
        finops insert People dataAreaId=usmf,PersonId=P1 Name=Self BossId=P1
        finops insert People dataAreaId=usmf,PersonId=P2 Name=Two BossId=P3
        finops insert People dataAreaId=usmf,PersonId=P3 Name=Three BossId=P2
        finops insert People dataAreaId=usmf,PersonId=P4 Name=Four BossId=P5
        finops insert People dataAreaId=usmf,PersonId=P5 Name=Five BossId=P6
        finops insert People dataAreaId=usmf,PersonId=P6 Name=Six";
    let end = r"
        failed none
        dataverse expect x_people x_number=P1 x_boss=@x_people/x_name=Self
        dataverse expect x_people x_number=P2 x_boss=@x_people/x_name=Three
        dataverse expect x_people x_number=P3 x_boss=@x_people/x_name=Two
        dataverse expect x_people x_number=P4 x_boss=@x_people/x_name=Five
        dataverse expect x_people x_number=P5 x_boss=@x_people/x_name=Six";
    check(&[], &format!("{rows}\nstart\n{end}"));
    check(&[], &format!("limit batch_rows_max = 1\n{rows}\nstart\n{end}"));
    check(&[], &format!("start\n{rows}\nsettle\n{end}"));
}

#[test]
fn maps_that_refer_to_each_other_end_equal() {
    let rows = r"
        finops insert People dataAreaId=usmf,PersonId=P1 Name=Ann TeamId=T1
        finops insert People dataAreaId=usmf,PersonId=P2 Name=Bob TeamId=T1
        finops insert People dataAreaId=usmf,PersonId=P3 Name=Cid TeamId=T2
        finops insert Teams dataAreaId=usmf,TeamId=T1 Title=One LeaderId=P1
        finops insert Teams dataAreaId=usmf,TeamId=T2 Title=Two LeaderId=P1";
    let end = r"
        failed none
        dataverse expect x_people x_number=P1 x_team=@x_teams/x_title=One
        dataverse expect x_people x_number=P2 x_team=@x_teams/x_title=One
        dataverse expect x_people x_number=P3 x_team=@x_teams/x_title=Two
        dataverse expect x_teams x_number=T1 x_leader=@x_people/x_name=Ann
        dataverse expect x_teams x_number=T2 x_leader=@x_people/x_name=Ann";
    check(&[], &format!("{rows}\nstart\n{end}"));
    check(&[], &format!("start\n{rows}\nsettle\n{end}"));
    let together = rows.trim().replace("\n        finops ", " ; ").replacen("finops ", "finops transaction ", 1);
    check(&[], &format!("start\n{together}\nsettle\n{end}"));
}

#[test]
fn a_row_that_misses_its_parent_follows_the_rule() {
    let missing = "finops insert People dataAreaId=usmf,PersonId=P1 Name=Ann PlaceName=Oslo RegionName=North";
    let parent = "finops insert Regions Name=North\nfinops insert Places RegionName=North,Name=Oslo Title=Real\nsettle";
    // It waits, and heals by itself.
    check(
        &[],
        &format!(
            "{missing}\nstart\nfailed people usmf/p1 DW-1006 column=x_place\ndataverse absent x_people x_number=P1\n{parent}\n\
             failed none\ndataverse expect x_people x_number=P1 x_place=@x_places/x_title=Real"
        ),
    );
    // It fails, and somebody has to ask for it.
    check(
        &[("people", r#"lookup = [{ field = "PlaceName", missing = "fail" }]"#)],
        &format!(
            "{missing}\nstart\nfailed people usmf/p1 DW-1013 column=x_place\n{parent}\nfailed people usmf/p1 DW-1013\n\
             retry people usmf/p1\nfailed none\ndataverse expect x_people x_number=P1 x_place=@x_places/x_title=Real"
        ),
    );
    // It goes without one.
    check(
        &[("people", r#"lookup_missing = "default""#)],
        &format!("{missing}\nstart\nfailed none\ndataverse expect x_people x_number=P1 x_name=Ann x_place=null"),
    );
    // It refers to another row, which has to be there.
    let other = r#"lookup = [{ field = "x_place", missing = "default", default = { x_name = "Bergen", "x_region.x_name" = "West" } }]"#;
    check(
        &[("people", other)],
        &format!(
            "finops insert Regions Name=West\nfinops insert Places RegionName=West,Name=Bergen Title=Elsewhere\n{missing}\n\
             start\nfailed none\ndataverse expect x_people x_number=P1 x_place=@x_places/x_title=Elsewhere"
        ),
    );
    check(&[("people", other)], &format!("{missing}\nstart\nfailed people usmf/p1 DW-1006 column=x_place"));
}

/// The missing place is made of its key, and so is its region.
#[test]
fn a_placeholder_stands_in_until_the_real_row_fills_it() {
    let rules = [
        ("people", r#"lookup = [{ field = "x_place", missing = "stub", columns = { x_title = "to come" } }]"#),
        ("places", r#"lookup_missing = "stub""#),
    ];
    check(
        &rules,
        r"
        finops insert People dataAreaId=usmf,PersonId=P1 Name=Ann PlaceName=Oslo RegionName=North
        finops insert People dataAreaId=usmf,PersonId=P2 Name=Bob PlaceName=Oslo RegionName=North
        start
        failed none
        dataverse expect x_people x_number=P1 x_place=@x_places/x_title='to come'
        dataverse expect x_people x_number=P2 x_place=@x_places/x_title='to come'
        dataverse expect x_places x_name=Oslo x_region=@x_regions/x_name=North
        activity placeholder places oslo/north was made of its key, because record
        activity placeholder regions north was made of its key
        # What was made here does not go to F&O.
        finops absent Places RegionName=North,Name=Oslo
        finops writes 0
        # A user touches it, and the real one fills it all the same.
        dataverse update x_places x_name=Oslo x_title='touched'
        finops insert Regions Name=North
        finops insert Places RegionName=North,Name=Oslo Title=Real
        settle
        failed none
        finops expect Places RegionName=North,Name=Oslo Title=Real
        dataverse expect x_places x_name=Oslo x_title=Real
        dataverse expect x_people x_number=P1 x_place=@x_places/x_title=Real
        ",
    );
    // In one transaction, what it needs is made with it; another one of the same finds it there.
    check(
        &rules,
        r"
        start
        dataverse writes 3
        finops transaction insert People dataAreaId=usmf,PersonId=P1 Name=Ann PlaceName=Oslo RegionName=North ; insert People dataAreaId=usmf,PersonId=P2 Name=Bob PlaceName=Oslo RegionName=North
        settle
        dataverse writes 4
        finops insert People dataAreaId=usmf,PersonId=P3 Name=Cid PlaceName=Oslo RegionName=North
        settle
        dataverse writes 1
        failed none
        # What nobody fills is a difference.
        differences 2
        ",
    );
}

#[test]
fn a_placeholder_that_a_user_completes_goes_to_finops() {
    check(
        &[("people", r#"lookup = [{ field = "x_place", missing = "stub" }]"#)],
        r"
        finops insert Regions Name=North
        finops insert People dataAreaId=usmf,PersonId=P1 Name=Ann PlaceName=Oslo RegionName=North
        start
        dataverse update x_places x_name=Oslo x_title=Capital
        settle
        finops expect Places RegionName=North,Name=Oslo Title=Capital
        failed none
        ",
    );
}

/// Pages of an initial sync run at the same time and need the same placeholder.
#[test]
fn many_rows_share_one_placeholder() {
    let rows = (0..20).map(|number| {
        format!("finops insert People dataAreaId=usmf,PersonId=P{number} Name=N PlaceName=Oslo RegionName=North")
    });
    let story = format!(
        "limit batch_rows_max = 2\nfinops insert Regions Name=North\n{}\nstart\nfailed none\ndataverse writes 25\n\
         finops insert Places RegionName=North,Name=Oslo Title=Real\nsettle\ndataverse writes 1",
        rows.collect::<Vec<_>>().join("\n")
    );
    check(&[("people", r#"lookup = [{ field = "x_place", missing = "stub" }]"#)], &story);
}

#[test]
fn a_placeholder_that_cannot_be_made_is_named() {
    let refused = |rule: &str, story: &str| {
        let told = std::panic::catch_unwind(|| check(&[("people", rule)], story));
        let panic = told.expect_err("it cannot start");
        panic.downcast_ref::<String>().expect("a text").clone()
    };
    let said = refused(r#"lookup = [{ field = "TeamId", missing = "stub" }]"#, "start");
    assert!(said.contains("a placeholder of map `teams` would leave x_title empty"), "{said}");
    assert!(said.contains("columns = { x_title = "), "{said}");
    let said = refused(r#"lookup = [{ field = "Nothing", missing = "hold" }]"#, "start");
    assert!(said.contains("the map has no lookup Nothing"), "{said}");
    let said =
        refused(r#"lookup = [{ field = "x_place", missing = "default", default = { x_name = "Oslo" } }]"#, "start");
    assert!(said.contains("the default names no row: the key is x_name and x_region.x_name"), "{said}");
    // What only the row says: a name that is too long for the table.
    check(
        &[("people", r#"lookup = [{ field = "TeamId", missing = "stub", columns = { x_title = "?" } }]"#)],
        r"
        finops insert People dataAreaId=usmf,PersonId=P1 Name=Ann TeamId='\{x*21}'
        start
        failed people usmf/p1 DW-1006 column=x_team
        dataverse absent x_people x_number=P1
        finops update People dataAreaId=usmf,PersonId=P1 TeamId=Short
        settle
        failed none
        dataverse expect x_people x_number=P1 x_team=@x_teams/x_title=?
        differences 1
        ",
    );
}

/// The place that the row refers to has no region, so its natural key is not to be had.
#[test]
fn a_dataverse_row_that_misses_its_parent_follows_the_rule() {
    let story = |end: &str| {
        format!(
            r"
            start
            dataverse insert x_regions x_name=West
            dataverse insert x_places x_name=Oslo x_title=West x_region=@x_regions/x_name=West
            dataverse insert x_places x_name=Oslo x_title=Nowhere
            settle
            dataverse insert x_people x_number=P1,x_company=@cdm_companies/cdm_companycode=usmf x_name=Ann x_place=@x_places/x_title=Nowhere
            settle
            {end}
            "
        )
    };
    let column = "column=RegionName";
    check(&[], &story(&format!("failed people usmf/p1 DW-1006 {column}")));
    check(&[("people", r#"lookup_missing = "fail""#)], &story(&format!("failed people usmf/p1 DW-1013 {column}")));
    check(
        &[("people", r#"lookup_missing = "default""#)],
        &story("failed none\nfinops expect People dataAreaId=usmf,PersonId=P1 PlaceName=Oslo RegionName="),
    );
    let other = r#"lookup = [{ field = "REGIONNAME", missing = "default", default = { x_name = "Oslo", "x_region.x_name" = "West" } }]"#;
    check(
        &[("people", other)],
        &story("failed none\nfinops expect People dataAreaId=usmf,PersonId=P1 PlaceName=Oslo RegionName=West"),
    );
}

/// Nothing but the system itself knows the teams: no map writes them. Each is asked for once by its key, and once by its
/// id where the changes of the people come back and need its number.
#[test]
fn a_parent_is_asked_for_once_and_together_with_others() {
    let teams = (0..3).map(|team| {
        format!(
            "dataverse insert x_teams x_number=T{team},x_company=@cdm_companies/cdm_companycode=usmf x_title=Team{team}"
        )
    });
    let people = (0..300)
        .map(|person| format!("insert People dataAreaId=usmf,PersonId=P{person} Name=N TeamId=T{}", person % 3))
        .collect::<Vec<_>>();
    let story = |counted: &str| {
        format!(
            "limit batch_rows_max = 100\nlimit initial_sync_concurrency = 1
            dataverse insert cdm_companies cdm_companycode=usmf cdm_name='Contoso US'
            {}
            finops transaction {}
            dataverse counts x_teams
            start
            failed none
            dataverse counted x_teams {counted}
            dataverse expect x_people x_number=P0 x_team=@x_teams/x_title=Team0
            dataverse expect x_people x_number=P299 x_team=@x_teams/x_title=Team2
            finops insert People dataAreaId=usmf,PersonId=P300 Name=N TeamId=T1
            settle
            dataverse expect x_people x_number=P300 x_team=@x_teams/x_title=Team1
            dataverse counted x_teams {counted}",
            teams.clone().collect::<Vec<_>>().join("\n"),
            people.join(" ; ")
        )
    };
    let key = r#"["x_company.cdm_companycode", "x_number"]"#;
    for (team, counted) in [("TEAMID>x_team.x_number", "3 in 1"), ("TEAMID=x_team.x_number", "6 in 2")] {
        let fields = ["PERSONID=x_number", "NAME=x_name", team];
        check_maps(&[("people", "People", "x_people", key, &fields)], &[], &[], &story(counted));
    }
}

/// A thing has twelve teams, so that their numbers are read in two rounds; two of the teams are the same one.
#[test]
fn names_of_many_lookups_are_read_in_rounds_of_ten() {
    const TEAMS: usize = 12;
    let each = |one: &dyn Fn(usize) -> String, between: &str| (0..TEAMS).map(one).collect::<Vec<_>>().join(between);
    let finops = format!(
        r#"{{"name": "Thing", "set": "Things", "entity": "Things", "entityName": "ThingEntity", "key": ["dataAreaId", "ThingId"],
            "columns": [{{"name": "dataAreaId", "type": "text", "maxLength": 4}},
                {{"name": "ThingId", "type": "text", "maxLength": 10}}, {}]}}"#,
        each(&|team| format!(r#"{{"name": "Team{team}", "type": "text", "maxLength": 60}}"#), ",")
    );
    let dataverse = format!(
        r#"{{"name": "x_thing", "set": "x_things", "primaryId": "x_thingid", "primaryName": "x_number",
            "alternateKeys": [{{"name": "thing", "columns": ["x_company", "x_number"]}}],
            "columns": [{{"name": "x_company", "type": "lookup",
                "targets": [{{"table": "cdm_company", "navigationProperty": "x_company"}}]}},
                {{"name": "x_number", "type": "text", "maxLength": 10}}, {}]}}"#,
        each(
            &|team| format!(
                r#"{{"name": "x_team{team}", "type": "lookup",
                    "targets": [{{"table": "x_team", "navigationProperty": "x_team{team}"}}]}}"#
            ),
            ","
        )
    );
    let fields = (0..TEAMS).map(|team| format!("TEAM{team}=x_team{team}.x_number")).collect::<Vec<_>>();
    let fields = std::iter::once("THINGID=x_number").chain(fields.iter().map(String::as_str)).collect::<Vec<_>>();
    let things = ("things", "Things", "x_things", r#"["x_company.cdm_companycode", "x_number"]"#, fields.as_slice());
    let usmf = "x_company=@cdm_companies/cdm_companycode=usmf";
    // The last one is the first again, which the first round has read.
    let number = |team: usize| team % (TEAMS - 1);
    let story = format!(
        "start
        {}
        dataverse counts x_teams
        dataverse insert x_things x_number=X1,{usmf} {}
        settle
        failed none
        finops expect Things dataAreaId=usmf,ThingId=X1 {}
        dataverse counted x_teams 11 in 2",
        each(&|team| format!("dataverse insert x_teams x_number=T{team},{usmf} x_title=Team"), "\n"),
        each(&|team| format!("x_team{team}=@x_teams/x_number=T{}", number(team)), " "),
        each(&|team| format!("Team{team}=T{}", number(team)), " "),
    );
    check_maps(&[things], &[(SystemKind::Finops, finops), (SystemKind::Dataverse, dataverse)], &[], &story);
}
