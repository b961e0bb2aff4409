//! Stories about records, a line per step. [`check`] tells one to the real engine between two emulators.
//!
//! ```text
//! companies usmf demf            the legal entities of the link (before start)
//! winner dataverse               whose value stands in a conflict (before start)
//! limit batch_rows_max = 10      a line of [limits] (before start)
//! map MAP unmatched = "clear"    a line of the map in dualwright.toml (before start)
//! bind MAP { name = "…", … }     a plugin binding, in the words of dualwright.toml (before start)
//! versioned MAP                  the map is its active version, which is the fixture's as 1.0.0.0 (before start)
//! version MAP 1.0.0.1 "OLD" => "NEW"   imports a version: the fixture's text with one part replaced
//! activate MAP 1.0.0.1           somebody activates it, while the runtime is at work
//! start                          feeds, initial sync, live sync until settled
//! restart                        the runtime is closed and opened again on its state
//! settle                         live sync until nothing is left to do
//! finops insert SET KEY COLUMN…  a user writes; KEY is column=value, with commas between several
//! dataverse update SET KEY COLUMN…   a lookup is written @set/column=value, no value is null
//! finops delete SET KEY
//! finops transaction insert … ; update …      one change set
//! dataverse refuses update …     the same, and the system must refuse it
//! finops faults JSON             how the emulator fails from now on: a list of rules
//! finops well                    and no longer
//! dataverse forget               every delta link is too old
//! finops expect SET KEY COLUMN…  the row is there and holds this
//! dataverse absent SET KEY       the row is not there
//! dataverse asked '/accounts?' '$filter=…'   it was sent a request, of the last 1,000, with all of these parts
//! dataverse counts x_teams       from now on, reads of single rows of that table
//! dataverse counted x_teams 3 in 1   so many reads, in so many batches
//! compared                       both sides are compared here, as at the end
//! dataverse writes 3             rows that the runtime wrote there since the last such line, or since the beginning
//! failed MAP KEY CODE [column=…] consecutive lines name all failed records; `failed none`; a KEY of * is any
//! activity conflict MAP KEY words of it   the log has such a line
//! timed PLUGIN                   `status` has figures of it, while the runtime is at work
//! calls PLUGIN 3                 so often it was called since the runtime was opened
//! dataverse drop TABLE COLUMN    somebody deletes a column, by logical names
//! finops redefine {…}            a deployment puts another definition in place of a table's
//! refresh [MAP…]                 `dualwright map refresh`, beside the runtime; maps that are named are accepted
//! retry MAP KEY                  somebody retries a failed record, and it settles
//! differences 1                  what compare must find at the end; without the line both sides must be equal
//! ```

use std::future::Future;
use std::pin::Pin;

use anyhow::{Context, bail, ensure};
use dualwright::store::{Activity, FailedRecord};
use dualwright_core::SystemKind;
use dualwright_core::mapping::VersionFacts;

use crate::audit;
use crate::systems::{Edit, Operation, Pairs, key_pairs};
use crate::words::{pair, split};
use crate::world::{Settings, World};

/// Tells a story. Beyond what it expects itself, at its end both sides are equal under the maps, no receipt was
/// applied twice, and the runtime wrote nothing that was there already. Panics with the line that does not hold.
pub fn check(story: &str) {
    check_with(Settings::default(), story);
}

/// The same with settings that a line cannot express.
pub fn check_with(settings: Settings, story: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a machine that runs tests has threads");
    runtime.block_on(async {
        let mut teller = match Teller::new(settings).await {
            Ok(teller) => teller,
            Err(error) => panic!("the world cannot be set up: {error:#}"),
        };
        if let Err(error) = teller.tell(story).await {
            let heard = teller.world.heard.lines();
            let tail = heard[heard.len().saturating_sub(20)..].join("\n    ");
            panic!("{error:#}\n  the engine said:\n    {tail}");
        }
        if let Err(error) = teller.world.end().await {
            panic!("the world cannot be taken down: {error:#}");
        }
    });
}

struct Teller {
    world: World,
    /// Where the last `writes` line of a system left its audit.
    audited: [i64; 2],
    differences: usize,
}

/// One line, with its number for messages.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    text: &'a str,
}

impl Teller {
    async fn new(settings: Settings) -> anyhow::Result<Self> {
        let world = World::new(settings).await?;
        for (code, name) in [("usmf", "Contoso US"), ("demf", "Contoso Deutschland"), ("gbsi", "Contoso UK")] {
            let edit = Edit {
                operation: Operation::Insert,
                set: "LegalEntities".to_owned(),
                key: vec![("LegalEntityId".to_owned(), code.to_owned())],
                columns: vec![("Name".to_owned(), name.to_owned())],
            };
            world.finops.write(&edit).await?.map_err(anyhow::Error::msg)?;
        }
        Ok(Self { world, audited: [0, 0], differences: 0 })
    }

    async fn tell(&mut self, story: &str) -> anyhow::Result<()> {
        let lines = story
            .lines()
            .enumerate()
            .map(|(number, text)| Line { number: number + 1, text: text.trim() })
            .filter(|line| !line.text.is_empty() && !line.text.starts_with('#'))
            .collect::<Vec<_>>();
        let is_failed = |line: &Line<'_>| line.text.starts_with("failed ");
        for block in lines.chunk_by(|a, b| is_failed(a) && is_failed(b)) {
            let step: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + '_>> = if is_failed(&block[0]) {
                Box::pin(self.expect_failed(block))
            } else {
                Box::pin(self.step(block[0].text))
            };
            step.await.with_context(|| format!("line {}: {}", block[0].number, shown(block[0].text)))?;
        }
        self.end().await
    }

    async fn step(&mut self, line: &str) -> anyhow::Result<()> {
        let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match verb {
            "companies" => {
                self.world.settings().companies = rest.split_whitespace().map(str::to_owned).collect();
            }
            "winner" => rest.clone_into(&mut self.world.settings().conflict_winner),
            "limit" => self.world.settings().limits.push(rest.to_owned()),
            "map" => {
                let (map, line) = rest.split_once(' ').context("map MAP LINE")?;
                self.world.settings().map_lines.push((map.to_owned(), line.trim().to_owned()));
            }
            "compared" => {
                let differences = self.world.compare().await?;
                ensure!(differences.len() == self.differences, "the two sides differ: {differences:#?}");
            }
            "versioned" => {
                self.import(rest, "1.0.0.0", &World::map_text(rest)?)?;
                self.world.versions(rest).activate("1.0.0.0".parse().map_err(anyhow::Error::msg)?)?;
                self.world.settings().versioned.push(rest.to_owned());
            }
            "version" => {
                let words = split(rest).map_err(anyhow::Error::msg)?;
                let [map, version, old, arrow, new] = words.as_slice() else { bail!("MAP VERSION OLD => NEW") };
                let text = World::map_text(map)?;
                ensure!(arrow == "=>" && text.matches(old.as_str()).count() == 1, "the map has no such part, or more");
                self.import(map, version, &text.replace(old.as_str(), new))?;
            }
            "activate" => {
                let (map, version) = rest.split_once(' ').context("activate MAP VERSION")?;
                self.world.versions(map).activate(version.parse().map_err(anyhow::Error::msg)?)?;
            }
            "bind" => {
                let (map, binding) = rest.split_once(' ').context("bind MAP { … }")?;
                self.world.settings().bindings.push((map.to_owned(), binding.trim().to_owned()));
            }
            "start" => self.world.start().await?,
            "restart" => self.world.open().await?,
            "settle" => self.world.settle().await?,
            "retry" => self.retry(rest).await?,
            "activity" => {
                let words = rest.split_whitespace().collect::<Vec<_>>();
                let (Some((kind, rest)), lines) = (words.split_first(), self.world.activity().await?) else {
                    bail!("activity KIND MAP KEY WORDS…");
                };
                let (map, rest) = rest.split_first().context("activity KIND MAP KEY WORDS…")?;
                let is_it = |line: &&Activity| {
                    line.kind == *kind
                        && line.map.as_deref() == Some(*map)
                        && line.text.contains(rest[0])
                        && line.text.contains(&rest[1..].join(" "))
                };
                ensure!(lines.iter().any(|line| is_it(&line)), "there are: {lines:#?}");
            }
            "timed" => {
                let places = self.world.timed_places().await?;
                ensure!(places.iter().any(|place| place.starts_with(rest)), "there are: {places:?}");
            }
            "refresh" => {
                let accepted = rest.split_whitespace().collect::<Vec<_>>();
                self.world.refresh(&accepted).await?;
            }
            "calls" => {
                let (plugin, number) = rest.split_once(' ').context("calls PLUGIN NUMBER")?;
                let calls = self.world.calls(plugin)?;
                ensure!(calls == number.trim().parse::<u64>()?, "it was called {calls} times");
            }
            "differences" => self.differences = rest.parse()?,
            _ => match SystemKind::from_name(verb) {
                Some(kind) => self.system_step(kind, rest).await?,
                None => bail!("`{verb}` is not a verb"),
            },
        }
        Ok(())
    }

    fn import(&self, map: &str, version: &str, text: &str) -> anyhow::Result<()> {
        let facts = VersionFacts {
            version: version.parse().map_err(anyhow::Error::msg)?,
            publisher: "contoso".to_owned(),
            ..VersionFacts::default()
        };
        self.world.versions(map).import(&facts, text)?;
        Ok(())
    }

    async fn system_step(&mut self, kind: SystemKind, line: &str) -> anyhow::Result<()> {
        let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let system = self.world.system(kind);
        match verb {
            "insert" | "update" | "delete" => {
                let answer = system.write(&edit(line)?).await?;
                answer.map_err(|refused| anyhow::anyhow!("{kind} refused it: {refused}"))?;
            }
            "refuses" => ensure!(system.write(&edit(rest)?).await?.is_err(), "{kind} took it"),
            "transaction" => {
                let edits = rest.split(" ; ").map(edit).collect::<anyhow::Result<Vec<_>>>()?;
                let answer = system.transaction(&edits).await?;
                answer.map_err(|refused| anyhow::anyhow!("{kind} refused it: {refused}"))?;
            }
            "drop" => {
                let (table, column) = rest.split_once(' ').context("drop TABLE COLUMN")?;
                system.drop_column(table, column.trim()).await?;
            }
            "redefine" => self.world.emulator(kind).redefine(serde_json::from_str(rest)?)?,
            "faults" => system.control("POST", "faults", Some(rest)).await?,
            "well" => system.control("DELETE", "faults", None).await?,
            "forget" => system.control("POST", "expire-delta-links", None).await?,
            "expect" => {
                let (set, key, columns) = row(rest)?;
                let found = system.find(&set, &key).await?;
                let found = found.with_context(|| format!("{kind} has no such row in {set}"))?;
                let differing = system.differing(&set, &found, &columns).await?;
                ensure!(differing.is_empty(), "{}", differing.join(", "));
            }
            "absent" => {
                let (set, key, _) = row(rest)?;
                ensure!(system.find(&set, &key).await?.is_none(), "{kind} has that row");
            }
            "asked" => {
                let parts = split(rest).map_err(anyhow::Error::msg)?;
                let asked = self.world.system(kind).asked().await?;
                let is_it = |url: &&String| parts.iter().all(|part| url.contains(part.as_str()));
                ensure!(asked.iter().any(|url| is_it(&url)), "it was asked: {asked:#?}");
            }
            "counts" => system.count_reads(rest).await?,
            "counted" => {
                let (set, wanted) = rest.split_once(' ').context("counted SET READS in BATCHES")?;
                let (reads, batches) = system.counted_reads(set).await?;
                ensure!(wanted.trim() == format!("{reads} in {batches}"), "it was {reads} in {batches}");
            }
            "writes" => {
                let place = &mut self.audited[usize::from(kind == SystemKind::Dataverse)];
                let entries = audit::read(self.world.system(kind), *place).await?;
                *place = entries.last().map_or(*place, |last| last.sequence);
                let ours = entries.iter().filter(|entry| entry.is_ours()).collect::<Vec<_>>();
                ensure!(ours.len() == rest.trim().parse::<usize>()?, "it was {}: {ours:#?}", ours.len());
            }
            _ => bail!("`{kind} {verb}` means nothing"),
        }
        Ok(())
    }

    async fn expect_failed(&self, lines: &[Line<'_>]) -> anyhow::Result<()> {
        let failed = self.world.failed().await?;
        let mut wanted = lines.iter().map(|line| FailedLine::read(line.text)).collect::<anyhow::Result<Vec<_>>>()?;
        wanted.retain(|line| line.map != "none");
        let mut unexpected = Vec::new();
        for record in &failed {
            match wanted.iter().position(|line| line.is_about(record)) {
                Some(position) => drop(wanted.swap_remove(position)),
                None => unexpected.push(format!("{} {} {}", record.map, record.key, record.fault)),
            }
        }
        let missing = wanted.iter().map(|line| format!("{} {} {}", line.map, line.key, line.code)).collect::<Vec<_>>();
        ensure!(
            unexpected.is_empty() && missing.is_empty(),
            "failed and not expected: {unexpected:#?}, expected and not failed: {missing:#?}"
        );
        Ok(())
    }

    async fn retry(&mut self, rest: &str) -> anyhow::Result<()> {
        let words = split(rest).map_err(anyhow::Error::msg)?;
        let [map, key] = words.as_slice() else { bail!("retry MAP KEY") };
        let failed = self.world.failed().await?;
        let ids = failed
            .iter()
            .filter(|record| *record.map == **map && record.key == *key)
            .map(|record| record.id)
            .collect::<Vec<_>>();
        ensure!(!ids.is_empty(), "no such failed record");
        self.world.retry(&ids).await?;
        self.world.settle().await
    }

    /// What holds at the end of every story.
    async fn end(&self) -> anyhow::Result<()> {
        let differences = self.world.compare().await?;
        ensure!(differences.len() == self.differences, "the two sides differ at the end: {differences:#?}");
        for system in [&self.world.finops, &self.world.dataverse] {
            let violations = audit::violations(&audit::read(system, 0).await?);
            ensure!(violations.is_empty(), "the audit of {}: {violations:#?}", system.kind);
        }
        Ok(())
    }
}

struct FailedLine {
    map: String,
    key: String,
    code: String,
    column: Option<String>,
}

impl FailedLine {
    fn read(line: &str) -> anyhow::Result<Self> {
        let words = split(line).map_err(anyhow::Error::msg)?;
        let mut line = Self { map: String::new(), key: String::new(), code: String::new(), column: None };
        match &words[1..] {
            [none] if none == "none" => line.map.clone_from(none),
            [map, key, code, more @ ..] => {
                line = Self { map: map.clone(), key: key.clone(), code: code.clone(), column: None };
                for word in more {
                    match pair(word).map_err(anyhow::Error::msg)? {
                        ("column", column) => line.column = Some(column.to_owned()),
                        (other, _) => bail!("{other} is not known of a failed record"),
                    }
                }
            }
            _ => bail!("failed MAP KEY CODE"),
        }
        Ok(line)
    }

    fn is_about(&self, record: &FailedRecord) -> bool {
        *record.map == *self.map
            && (self.key == "*" || record.key == self.key)
            && record.fault.code.to_string() == self.code
            && self.column.as_ref().is_none_or(|column| record.fault.column.as_ref() == Some(column))
    }
}

/// `insert SET KEY COLUMN…`.
fn edit(line: &str) -> anyhow::Result<Edit> {
    let (verb, rest) = line.trim().split_once(char::is_whitespace).context("insert, update or delete")?;
    let operation = match verb {
        "insert" => Operation::Insert,
        "update" => Operation::Update,
        "delete" => Operation::Delete,
        _ => bail!("`{verb}` is not insert, update or delete"),
    };
    let (set, key, columns) = row(rest)?;
    Ok(Edit { operation, set, key, columns })
}

/// `SET KEY COLUMN…`.
fn row(text: &str) -> anyhow::Result<(String, Pairs, Pairs)> {
    let words = split(text).map_err(anyhow::Error::msg)?;
    let [set, key, columns @ ..] = words.as_slice() else { bail!("SET KEY COLUMN…") };
    let columns = columns
        .iter()
        .map(|word| pair(word).map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect::<Result<Vec<_>, _>>()
        .map_err(anyhow::Error::msg)?;
    Ok((set.clone(), key_pairs(key).map_err(anyhow::Error::msg)?, columns))
}

fn shown(line: &str) -> String {
    line.chars().take(200).collect()
}
