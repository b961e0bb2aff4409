//! One plugin with several extension points: each is configured on its own, and each keeps to itself.

use dualwright_sdk::prelude::*;
use dualwright_sdk::settings::SettingValue;
use dualwright_sdk::testing::{Bench, column};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Choice)]
enum Ending {
    ExclamationMark,
    QuestionMark,
}

#[derive(Debug, Settings)]
struct Voice {
    /// How a sentence ends.
    #[setting(default = "exclamation-mark")]
    ending: Ending,
    /// How often it ends.
    #[setting(default = 1, minimum = 1, maximum = 9)]
    times: u32,
    /// Words that are not to be said.
    banned: Vec<String>,
    /// The price of a word.
    #[setting(name = "price", default = 0.5)]
    #[expect(dead_code, reason = "it is only described")]
    price_of_word: Decimal,
    /// Who is speaking.
    #[column(name = "Speaker", kinds(Text, Choice))]
    speaker: Option<Column>,
}

const BANNED: IssueText = IssueText::error("word-banned", "the word {0} is not to be said: choose another");
const CHANGED: IssueText = IssueText::warning("words-changed", "the words arrived as {0} characters");
const EMPTY: IssueText = IssueText::info("nothing-said", "there is nothing to say");

fn end(voice: &Voice, text: &str, out: &mut String) -> Result<(), Issue> {
    if let Some(word) = voice.banned.iter().find(|word| text.contains(word.as_str())) {
        return Err(BANNED.row().arg(word));
    }
    let ending = if voice.ending == Ending::ExclamationMark { '!' } else { '?' };
    out.push_str(text.trim_end_matches(ending));
    out.extend((0..voice.times).map(|_| ending));
    Ok(())
}

fn before(voice: &Voice, proposed: Row<'_>, current: Option<Row<'_>>) -> Option<Issue> {
    let speaks = voice.speaker.and_then(|speaker| proposed.text(speaker)).is_some();
    (!speaks && current.is_none()).then(|| EMPTY.row())
}

fn after(_: &Voice, sent: Row<'_>, stored: Option<Row<'_>>) -> Vec<Issue> {
    let differing =
        sent.columns().filter(|&column| stored.is_none_or(|stored| stored.cell(column) != sent.cell(column)));
    differing.map(|column| CHANGED.on(column).arg(sent.text(column).map_or(0, str::len))).collect()
}

dualwright_sdk::plugin! {
    name: "voice",
    text: "Raises its voice.",
    state: Voice,
    issues: [BANNED, CHANGED, EMPTY],
    idempotent: true,
    transform: text(end),
    pre_validate: before,
    post_validate: after,
}

fn bench() -> Bench {
    Bench::new([column("Words", Kind::Text).writable(), column("SPEAKER", Kind::Text)])
}

#[test]
fn each_extension_point_answers() {
    let banned = SettingValue::Texts(vec!["darn".to_owned()]);
    let loud = bench().setting("times", SettingValue::Integer(3)).setting("banned", banned);
    let rows = [vec!["hello".into(), "Ann".into()], vec!["darn it".into()], vec!["hello!!!".into()], vec![Cell::Null]];
    assert_eq!(
        loud.transform::<Plugin>(&rows).expect("it runs"),
        ["Words=hello!!!", "Words!word-banned(darn)", "=", "="]
    );

    let there = [vec![Cell::Absent], vec!["there".into()]];
    let lines = bench().pre_validate::<Plugin>(&[vec!["a".into()], vec!["b".into()]], &there).expect("it runs");
    assert_eq!(lines, ["!nothing-said()", "="]);

    let lines = bench().post_validate::<Plugin>(&[vec!["abc".into()]], &[vec!["ab".into()]]).expect("it runs");
    assert_eq!(lines, ["Words!words-changed(3)"]);
}

#[test]
fn the_description_says_what_the_settings_are() {
    let description = bench().describe::<Plugin>();
    let parameters: Vec<String> = description
        .parameters
        .iter()
        .map(|parameter| {
            let default = parameter.default_value.as_deref().unwrap_or("none");
            let range = (parameter.minimum.as_deref(), parameter.maximum.as_deref());
            format!(
                "{} {:?} {} {default} {range:?} {:?}: {}",
                parameter.name, parameter.kind, parameter.required, parameter.options, parameter.text
            )
        })
        .collect();
    assert_eq!(
        parameters,
        [
            "ending ParameterKind::Choice false \"exclamation-mark\" (None, None) [\"exclamation-mark\", \"question-mark\"]: How a \
             sentence ends.",
            "times ParameterKind::Integer false 1 (Some(\"1\"), Some(\"9\")) []: How often it ends.",
            "banned ParameterKind::Texts false none (None, None) []: Words that are not to be said.",
            "price ParameterKind::Decimal false 0.5 (None, None) []: The price of a word.",
        ]
    );
    let column = &description.columns[0];
    assert_eq!((column.name.as_str(), column.required, column.kinds.as_slice()), ("Speaker", false, &[5, 11][..]));
    assert_eq!(description.issues.len(), 3);
    assert!(description.idempotent && !description.reads_before);
}

#[test]
fn wrong_settings_are_all_named() {
    let bench = Bench::new([column("Words", Kind::Text).writable(), column("Speaker", Kind::Int64)])
        .setting("ending", SettingValue::Text("full-stop".to_owned()))
        .setting("times", SettingValue::Integer(-1));
    let failure = bench.transform::<Plugin>(&[vec!["a".into()]]).expect_err("it is refused");
    assert_eq!(
        failure.reasons(),
        [
            "ending: must be one of exclamation-mark, question-mark",
            "times: is missing or of another kind than the description says",
            "Speaker: must be of kind text or choice",
        ]
    );
}

/// A function that takes away what is not its own is found out, and its call comes to nothing.
mod greedy {
    use dualwright_sdk::prelude::*;
    use dualwright_sdk::testing::{Bench, column};

    fn take(_: &(), text: &str, out: &mut String) {
        out.clear();
        out.extend(text.chars().take(1));
    }

    dualwright_sdk::plugin! {
        name: "greedy",
        text: "Clears the column.",
        state: (),
        transform: text(take),
    }

    #[test]
    fn is_found_out() {
        let bench = Bench::new([column("Words", Kind::Text).writable()]);
        let failure = bench.transform::<Plugin>(&[vec!["one".into()], vec!["".into()]]).expect_err("it fails");
        assert!(failure.reasons()[0].contains("removed text"), "{:?}", failure.reasons());
    }
}
