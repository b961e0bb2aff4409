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
fn every_problem_is_named_at_its_place() {
    for (from, to, place, words) in [
        ("slug = \"contoso\"", "slug = \"Contoso Ltd\"", "link.slug", "not a slug"),
        ("companies = [\"USMF\", \"eumf\"]", "companies = []", "link.companies", "names no legal entity"),
        ("http://127.0.0.1:1", "127.0.0.1:1", "link.finops.url", "not a"),
        ("tenant = \"default\"", "tenent = \"default\"", "line 2", "unknown field `tenent`"),
        ("stage = \"transform\"", "stage = \"transfrom\"", "line 18", "unknown variant `transfrom`"),
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

#[test]
fn all_problems_are_reported_at_once() {
    let text = GOOD
        .replace("slug = \"contoso\"", "slug = \"C C\"")
        .replace("[\"USMF\", \"eumf\"]", "[]")
        .replace("\"NAME\"", "\"\"");
    assert!(parse(&text).expect_err("is not valid").len() >= 2);
}
