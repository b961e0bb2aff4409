//! Pages as text: what is on them, and that nothing in a row becomes markup.

use super::html::{cell_text, escaped};
use super::*;
use crate::{Clock, Emulator, read_tables};

fn get(emulator: &Emulator, path: &str) -> Option<(u16, String)> {
    let request = Request { method: "GET".into(), url: format!("/_emulator{path}"), ..Request::default() };
    let bare = path.split('?').next().unwrap_or_default();
    answer(&emulator.inner, bare, &request)
        .map(|response| (response.status, String::from_utf8(response.body).expect("text")))
}

#[test]
fn rows_are_paged_and_escaped() {
    let emulator = Emulator::open_with_clock(Dialect::Finops, None, Clock::standing_at(0)).expect("opens");
    let tables = r#"{"tables":[{"name":"Thing","set":"Things","key":["Id"],"columns":[{"name":"Id","type":"text"},
        {"name":"Note","type":"memo"}]}]}"#;
    emulator.define(&read_tables(tables).expect("reads").tables).expect("defines");
    let rows = (0..120).map(|number| {
        let note = if number == 0 { "<script>alert(\"1\")</script> & 'so'".to_owned() } else { "x".repeat(100) };
        serde_json::from_value(serde_json::json!({"Id": format!("T{number:03}"), "Note": note})).expect("a row")
    });
    emulator.seed("Things", rows.collect()).expect("seeds");

    let (status, html) = get(&emulator, "/").expect("tables");
    assert_eq!(status, 200);
    assert!(html.contains("<a href=\"/_emulator/page/tables/Things\">Things</a>"), "{html}");
    assert!(html.contains("<td class=number>120</td>"), "{html}");

    let mut path = "/page/tables/Things".to_owned();
    let mut seen = Vec::new();
    loop {
        let (_, html) = get(&emulator, &path).expect("rows");
        assert!(!html.contains("<script"), "{html}");
        seen.extend((0..120).filter(|number| html.contains(&format!("<td>T{number:03}</td>"))));
        let Some((_, next)) = html.split_once("<a href=\"/_emulator/page/tables/Things?after=") else { break };
        path = format!("/page/tables/Things?after={}", next.split('"').next().expect("a place"));
    }
    assert_eq!(seen, (0..120).collect::<Vec<_>>(), "every row once, in order");

    let (_, html) = get(&emulator, "/page/tables/Things").expect("rows");
    let (_, after) = html.split_once("/row?place=").expect("a link to a row");
    let (_, html) =
        get(&emulator, &format!("/page/tables/Things/row?place={}", after.split('"').next().expect("a place")))
            .expect("a row");
    assert!(html.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;so&#39;"), "{html}");

    for missing in ["/page/tables/Nothing", "/page/tables/Things/row?place=99999", "/page/tables/Things/x", "/page/x"] {
        assert_eq!(get(&emulator, missing), None, "{missing}");
    }
    for path in ["/page/requests", "/page/audit", "/page/audit?before=5", "/page/faults", "/page/tables/Things?after=x"]
    {
        assert_eq!(get(&emulator, path).expect("a page").0, 200, "{path}");
    }
}

#[test]
fn text_is_not_markup() {
    for (text, wanted) in [
        ("<b a='1' c=\"2\">&", "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;"),
        ("a\u{0}b\u{202e}c\nd\te", "a\u{fffd}b\u{fffd}c\nd\te"),
        ("ä €", "ä €"),
    ] {
        assert_eq!(escaped(text), wanted);
    }
    for (cell, wanted) in [
        ("null", "<span class=none>null</span>"),
        ("\"null\"", "null"),
        ("\"äöüß\"", "äöü…"),
        ("12", "12"),
        ("\"<&\"", "&lt;&amp;"),
    ] {
        assert_eq!(cell_text(cell, 3).replace("nul…", "null"), wanted, "{cell}");
    }
    assert_eq!(["1,234,567", "123", "1,000"], [1_234_567, 123, 1_000].map(grouped));
}
