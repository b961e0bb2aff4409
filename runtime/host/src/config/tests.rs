use super::*;

const GOOD: &str = r#"
tenant = "default"

[link]
slug = "contoso"
companies = ["USMF", "eumf"]
finops.url = "http://127.0.0.1:1"
dataverse.url = "http://127.0.0.1:2"

[[map]]
slug = "currencies"
file = "maps/currencies.json"
integration_key = ["isocurrencycode"]

[[map.plugin]]
name = "text-cleanup"
stage = "transform"
field = "NAME"
direction = "both"
parameters = { trim = true }
"#;

fn parse(text: &str) -> Result<Config, Vec<ConfigProblem>> {
    Config::parse("dualwright.toml", text, Path::new("/etc/dualwright"), &|_| None)
}

#[test]
fn a_small_file_gets_the_decided_defaults() {
    let config = parse(GOOD).expect("is valid");
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.link.companies.iter().collect::<Vec<_>>(), ["eumf", "usmf"]);
    assert_eq!(config.maps[0].file, Path::new("/etc/dualwright/maps/currencies.json"));
    assert_eq!(config.maps[0].bindings[0].targets, [SystemKind::Dataverse, SystemKind::Finops]);
    assert_eq!(config.maps[0].bindings[0].parameters, serde_json::json!({ "trim": true }));
}

#[test]
fn an_installation_says_only_where_its_limits_differ() {
    let text = GOOD
        .replace(
            "[link]",
            "[limits.plugin]\nmemory_mib = 32\nlog_lines = 5\n[limits.tenant]\ncalls_in_flight = 3\n[link]",
        )
        .replace("parameters =", "limits = { hard_limit_ms = 300, warm = { minutes = 1 } }\nparameters =");
    let config = parse(&text).expect("is valid");
    let of_all = config.limits.plugin;
    assert_eq!((of_all.memory_bytes_max, of_all.log_lines_max, of_all.warm), (32 << 20, 5, None));
    assert_eq!(of_all.hard_limit, Duration::from_secs(2), "as it is where nobody says anything");
    assert_eq!(config.limits.tenant.calls_in_flight_max, Some(3));
    let own = config.maps[0].bindings[0].limits;
    assert_eq!((own.memory_bytes_max, own.log_lines_max), (32 << 20, 5), "what all have");
    assert_eq!((own.hard_limit, own.wall_limit), (Duration::from_millis(300), Duration::from_millis(3_000)));
    let warm = own.warm.expect("asked for");
    assert_eq!((warm.age_max, warm.transactions_max), (Duration::from_secs(60), 128));
    assert_eq!(config.plugin_memory_bytes_highest(), 32 << 20);
}

#[test]
fn limits_that_cannot_work_are_refused() {
    for (written, words) in [
        ("plugin.hard_limit_ms = 0", "a time of 0"),
        ("plugin.wall_limit_ms = 100", "wall_limit_ms is below hard_limit_ms"),
        ("plugin.call_min_ms = 3000", "call_min_ms is above hard_limit_ms"),
        ("plugin.memory_mib = 0", "memory_mib is not between"),
        ("plugin.tables = 5", "tables not between 1 and 4"),
        ("plugin.transfer_out_kib = 0", "a transfer size of 0"),
        ("plugin.warm = { idle = 0 }", "warm keeps no instance"),
        ("tenant.instances = 0", "leaves no plugin anything"),
        ("plugin_threads = 0", "not between 1 and 256"),
    ] {
        let problems = parse(&GOOD.replace("[link]", &format!("[limits]\n{written}\n[link]"))).expect_err(written);
        assert!(problems.iter().any(|problem| problem.message.contains(words)), "{written}: {problems:?}");
    }
}

#[test]
fn every_problem_is_named_at_its_place() {
    for (from, to, place, words) in [
        ("slug = \"contoso\"", "slug = \"Contoso Ltd\"", "link.slug", "not a slug"),
        ("companies = [\"USMF\", \"eumf\"]", "companies = []", "link.companies", "names no legal entity"),
        ("http://127.0.0.1:1", "127.0.0.1:1", "link.finops.url", "not a"),
        ("tenant = \"default\"", "tenent = \"default\"", "line 2", "unknown field `tenent`"),
        ("stage = \"transform\"", "stage = \"transfrom\"", "line 17", "unknown variant `transfrom`"),
        ("field = \"NAME\"", "", "map `currencies`", "transforms no field"),
        ("[\"isocurrencycode\"]", "[]", "map `currencies`", "integration_key is empty"),
        (
            "finops.url = \"http://127.0.0.1:1\"",
            "finops = { url = \"https://a\", auth = { token_url = \"https://t\", client_id = \"c\", client_secret = { env = \"UNSET\" }, scope = \"s\" } }",
            "link.finops.auth.client_secret",
            "UNSET is not set",
        ),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let problems = parse(&text).expect_err(to);
        assert!(
            problems.iter().any(|problem| problem.place == place && problem.message.contains(words)),
            "{to}: {problems:?}"
        );
    }
}

const TABLE_MAP: &str = r#"
[[map]]
slug = "customer-split"
finops_collection = "CustomersV3"
table_map = { plugin = "customer-split", parameters = { contact-suffix = "-P" } }

[[map.table]]
set = "accounts"
integration_key = ["accountnumber", "msdyn_company.cdm_companycode"]
"#;

#[test]
fn a_table_map_stands_for_a_file() {
    let config = parse(&format!("{GOOD}{TABLE_MAP}")).expect("is valid");
    assert_eq!(config.maps.len(), 1);
    let [map] = config.table_maps.as_slice() else { panic!("{:?}", config.table_maps) };
    assert_eq!((map.slug.as_str(), map.on_fault), ("customer-split", FaultPolicy::SetAside));
    assert_eq!(map.tables[0].set, "accounts");
    assert_eq!(map.parameters, serde_json::json!({ "contact-suffix": "-P" }));
}

#[test]
fn problems_of_a_table_map_are_named() {
    for (from, to, words) in [
        ("finops_collection = \"CustomersV3\"", "", "finops_collection is missing"),
        ("finops_collection", "file = \"x.json\"\nfinops_collection", "no place for file"),
        ("[\"accountnumber\", \"msdyn_company.cdm_companycode\"]", "[]", "integration_key of table accounts is empty"),
        ("parameters = {", "on_fault = \"pass-through\", parameters = {", "may not let records pass"),
        ("table_map = {", "file = \"x.json\" #", "has a [[map.table]] and no table_map"),
        ("[[map.table]]\nset = \"accounts\"\nintegration_key", "#", "there is no [[map.table]]"),
    ] {
        let text = TABLE_MAP.replacen(from, to, 1);
        assert_ne!(text, TABLE_MAP, "{from}");
        let problems = parse(&format!("{GOOD}{text}")).expect_err(to);
        assert!(problems.iter().any(|problem| problem.message.contains(words)), "{to}: {problems:?}");
    }
    let problems = parse(&GOOD.replace("stage = \"transform\"", "stage = \"table-map\"")).expect_err("is no stage");
    assert!(problems.iter().any(|problem| problem.remedy.contains("table_map")), "{problems:?}");
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = GOOD
        .replace("slug = \"contoso\"", "slug = \"C C\"")
        .replace("[\"USMF\", \"eumf\"]", "[]")
        .replace("\"NAME\"", "\"\"");
    assert!(parse(&text).expect_err("is not valid").len() >= 2);
}

/// Judges a value by the keywords that the schema uses; one that is not known here is a mistake of this test.
fn judge(root: &serde_json::Value, schema: &serde_json::Value, value: &serde_json::Value) -> Result<(), String> {
    let Some(keywords) = schema.as_object() else {
        return if schema == &serde_json::Value::Bool(false) {
            Err(format!("{value} is one too many"))
        } else {
            Ok(())
        };
    };
    for (keyword, wanted) in keywords {
        let list = || wanted.as_array().expect("a list");
        let fits = |schema: &&serde_json::Value| judge(root, schema, value).is_ok();
        let holds = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => true,
            "$ref" => {
                let path = wanted.as_str().and_then(|path| path.strip_prefix('#')).expect("a place in the schema");
                judge(root, root.pointer(path).expect("it is there"), value)?;
                true
            }
            "type" => {
                let name = match value {
                    serde_json::Value::Null => "null",
                    serde_json::Value::Bool(_) => "boolean",
                    serde_json::Value::Number(_) => "integer",
                    serde_json::Value::String(_) => "string",
                    serde_json::Value::Array(_) => "array",
                    serde_json::Value::Object(_) => "object",
                };
                wanted == name || wanted.as_array().is_some_and(|names| names.iter().any(|own| own == name))
            }
            "const" => wanted == value,
            "enum" => list().contains(value),
            "anyOf" => list().iter().any(|schema| fits(&schema)),
            "oneOf" => list().iter().filter(fits).count() == 1,
            "minimum" => value.as_f64().is_none_or(|value| wanted.as_f64().expect("a number") <= value),
            "maximum" => value.as_f64().is_none_or(|value| value <= wanted.as_f64().expect("a number")),
            "required" => value
                .as_object()
                .is_none_or(|object| list().iter().all(|name| object.contains_key(name.as_str().expect("a name")))),
            "items" => {
                value.as_array().into_iter().flatten().try_for_each(|item| judge(root, wanted, item))?;
                true
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    wanted.get(name).map_or(Ok(()), |schema| judge(root, schema, value))?;
                }
                true
            }
            "additionalProperties" => {
                let known = |name: &str| keywords.get("properties").is_some_and(|known| known.get(name).is_some());
                for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| !known(name)) {
                    judge(root, wanted, value).map_err(|why| format!("{name}: {why}"))?;
                }
                true
            }
            other => panic!("the test does not know {other}"),
        };
        if !holds {
            return Err(format!("{value} does not hold {keyword} {wanted}"));
        }
    }
    Ok(())
}

#[test]
fn the_json_schema_takes_what_the_program_takes() {
    let schema = Config::json_schema();
    let judged = |text: &str| {
        let value = serde_json::to_value(toml::from_str::<toml::Table>(text).expect("TOML")).expect("JSON");
        judge(&schema, &schema, &value)
    };
    let folder = tempfile::tempdir().expect("a folder");
    let urls = crate::demo::Urls { finops: "http://127.0.0.1:1".into(), dataverse: "http://127.0.0.1:2".into() };
    let demo = crate::demo::DataSource::embedded().and_then(|data| data.write_settings(folder.path(), &urls));
    let demo = std::fs::read_to_string(demo.expect("settings")).expect("they were written");
    let example = include_str!("../../../../examples/partner-map-extension/dualwright.toml");
    for text in [GOOD, &format!("{GOOD}{TABLE_MAP}"), &demo, example] {
        assert_eq!(judged(text), Ok(()), "{text}");
        assert!(parse(text).is_ok(), "{text}");
    }
    for (from, to) in [
        ("tenant = \"default\"", "tenent = \"default\""),
        ("slug = \"contoso\"", ""),
        ("[\"USMF\", \"eumf\"]", "\"USMF\""),
        ("finops.url", "conflict_winner = \"nobody\"\nfinops.url"),
        ("stage = \"transform\"", "stage = \"table-map\""),
        ("direction = \"both\"", "direction = \"north\""),
        ("[link]", "[limits]\nbatch_rows_max = 999\n[link]"),
        ("parameters = {", "on_fault = \"shrug\"\nparameters = {"),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        assert!(judged(&text).is_err(), "{to}");
        assert!(parse(&text).is_err(), "{to}");
    }
}
