//! Checks the rules for the structure of the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of each folder, floor by floor from the bottom. A module may use the modules on the floors below its
/// own. The folder's `mod.rs` may use all its modules, and none of them may use `mod.rs`.
const FLOORS: &[(&str, &[&[&str]])] = &[
    (
        "",
        &[
            &["turn"],
            &["report"],
            &["clock", "deceptive", "line_queue", "private_file", "readable", "settings", "terminal"],
            &["link"],
            &["config", "otel", "simulate", "span_log", "store"],
            &["actors"],
            &["recorder", "runtime", "telemetry"],
            &["http"],
            &["cli"],
        ],
    ),
    (
        "report",
        &[
            &["plausible"],
            &["histogram", "label", "quarter"],
            &["level", "part", "zone"],
            &["rollup", "cost"],
            &["breakdown", "figures", "price", "throughput"],
            &["contribution"],
        ],
    ),
    ("report/price", &[&["digest", "names", "rate"], &["data", "table"]]),
    ("store", &[&["fault", "position"], &["erased_sums"], &["contract"], &["rule", "retention", "engine"], &["redb"]]),
    (
        "store/redb",
        &[
            &["tables", "unwind"],
            &["journal", "read_threads"],
            &["memtable"],
            &["files"],
            &["checkpoint", "query"],
            &["writer"],
            &["maintenance"],
            &["engine"],
            &["answers"],
        ],
    ),
    (
        "actors",
        &[
            &["end", "load", "open_changes", "reader"],
            &["facts"],
            &["feed", "store"],
            &["changes"],
            &["conversation", "import", "live_feed"],
            &["directory"],
            &["retention", "sweeper"],
        ],
    ),
    (
        "http",
        &[
            &["access", "acknowledged", "long_work"],
            &["error"],
            &["intake", "middleware"],
            &["resources"],
            &["pages"],
            &["transport"],
        ],
    ),
    (
        "http/pages",
        &[
            &["charts", "link", "protection"],
            &["figure", "files"],
            &["layout", "panel", "view"],
            &["answer", "live"],
            &["conversation", "conversations", "models", "overview", "service"],
            &["mount"],
        ],
    ),
];

/// Folders in which files must not use each other in a circle. The rule holds for their subfolders too.
const WITHOUT_CIRCLES: &[&str] = &["actors", "http", "report", "store"];

/// The module that has no floor: tests use it, and it uses the modules that it replaces.
const BESIDE: &str = "testing";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root().join("src")).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The path of a module, such as `["store", "redb", "engine"]`.
type Way = Vec<String>;

fn way(path: &Path) -> Way {
    let mut way: Way = path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    way.pop_if(|last| last == "mod");
    way
}

/// Returns the top-level module of a file.
fn module(path: &Path) -> String {
    way(path).swap_remove(0)
}

/// Returns the text without its tests, which may use any module.
fn without_tests(text: &str) -> &str {
    text.split("\nmod tests {").next().unwrap()
}

/// Returns the sources without those that only tests use.
fn sources_that_run() -> Vec<(PathBuf, String)> {
    let mut sources = sources();
    let tests: BTreeSet<Way> = sources
        .iter()
        .flat_map(|(path, text)| {
            let lines = text.split("#[cfg(test)]\n").skip(1).filter_map(|rest| rest.lines().next()?.strip_suffix(';'));
            let names = lines.filter_map(|line| line.strip_prefix("pub(crate) ").unwrap_or(line).strip_prefix("mod "));
            names.map(|name| [way(path), vec![name.to_owned()]].concat())
        })
        .collect();
    sources.retain(|(path, _)| !tests.iter().any(|test| way(path).starts_with(test)));
    sources.into_iter().map(|(path, text)| (path, without_tests(&text).to_owned())).collect()
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Reads the path or tree of paths after `crate::` or the like, adds each path to `found`, and returns the rest.
fn read_paths<'a>(text: &'a str, mut way: Way, found: &mut Vec<Way>) -> &'a str {
    let mut text = text.trim_start();
    if let Some(inner) = text.strip_prefix('{') {
        text = inner.trim_start();
        while !text.is_empty() && !text.starts_with('}') {
            let rest = read_paths(text, way.clone(), found);
            // Anything after the path, such as `as name`, is skipped.
            text = rest.trim_start_matches(|c| c != ',' && c != '}').trim_start_matches(',').trim_start();
        }
        return text.strip_prefix('}').unwrap_or(text);
    }
    let name = text.split(|c| !is_of_a_name(c) && c != '*').next().unwrap();
    let rest = &text[name.len()..];
    match name {
        "super" => drop(way.pop()),
        "self" => {}
        name => way.push(name.to_owned()),
    }
    if let Some(rest) = rest.strip_prefix("::") {
        return read_paths(rest, way, found);
    }
    found.push(way);
    rest
}

/// Returns the paths of the library that a file uses. `children` are the modules that a `mod.rs` may name without
/// `self`.
fn used(own: &[String], children: &BTreeSet<String>, text: &str) -> Vec<Way> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("::") {
        let before = &text[..at];
        let name = &before[before.rfind(|c| !is_of_a_name(c)).map_or(0, |place| place + 1)..];
        if before[..before.len() - name.len()].ends_with("::") {
            continue;
        }
        let from = match name {
            "crate" => Vec::new(),
            "self" => own.to_vec(),
            "super" => own[..own.len() - 1].to_vec(),
            child if children.contains(child) => [own, &[child.to_owned()]].concat(),
            _ => continue,
        };
        read_paths(&text[at + 2..], from, &mut found);
    }
    found
}

/// The modules of each folder, and the modules that each of their files uses.
struct House {
    rooms: BTreeMap<Way, BTreeSet<String>>,
    uses: Vec<(PathBuf, Vec<Way>)>,
}

impl House {
    fn of(sources: Vec<(PathBuf, String)>) -> Self {
        let mut rooms = BTreeMap::<Way, BTreeSet<String>>::new();
        for (path, _) in &sources {
            let mut way = way(path);
            while let Some(name) = way.pop() {
                rooms.entry(way.clone()).or_default().insert(name);
            }
        }
        let none = BTreeSet::new();
        let uses = sources.into_iter().map(|(path, text)| {
            let own = way(&path);
            let children = rooms.get(&own).filter(|_| path.ends_with("mod.rs")).unwrap_or(&none);
            let used = used(&own, children, &text);
            (path, used)
        });
        let uses = uses.collect();
        Self { rooms, uses }
    }

    /// Returns the files in a folder, each with its module and with the names in that folder that it uses. Such a name
    /// is another module, or an item of `mod.rs`.
    fn within<'a>(&'a self, folder: &'a [String]) -> impl Iterator<Item = (&'a Path, String, Vec<&'a String>)> {
        self.uses.iter().filter_map(move |(path, used)| {
            let own = way(path).strip_prefix(folder)?.first().cloned().unwrap_or("mod".into());
            let used = used.iter().filter_map(|used| used.strip_prefix(folder)?.first());
            Some((&**path, own, used.collect()))
        })
    }
}

type Floors = [(&'static str, &'static [&'static [&'static str]])];

/// Returns each use of a module that is not on a floor below.
fn upward(house: &House, floors: &Floors) -> Vec<String> {
    let mut found = Vec::new();
    for (folder, floors) in floors {
        let floor = |room: &str| floors.iter().position(|floor| floor.contains(&room));
        let folder: Way = folder.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        for (path, own, used) in house.within(&folder) {
            if matches!(&*own, "lib" | "main" | "mod" | BESIDE) {
                continue;
            }
            let on = floor(&own).unwrap_or_else(|| panic!("{own} in {folder:?} has no floor"));
            for used in used.into_iter().filter(|used| **used != own) {
                if floor(used).is_none_or(|floor| floor >= on) {
                    found.push(format!("{} uses {used} of {folder:?}, which is not on a floor below", path.display()));
                }
            }
        }
    }
    found
}

/// Returns the circles of files in a folder that use each other.
fn circles(house: &House) -> Vec<String> {
    let mut found = Vec::new();
    for (folder, rooms) in &house.rooms {
        if !folder.first().is_some_and(|first| WITHOUT_CIRCLES.contains(&&**first)) {
            continue;
        }
        let mut uses = BTreeMap::<String, BTreeSet<String>>::new();
        for (_, own, used) in house.within(folder) {
            let others = used.into_iter().map(|used| if rooms.contains(used) { &**used } else { "mod" });
            let others = others.filter(|other| *other != own).map(str::to_owned);
            uses.entry(own.clone()).or_default().extend(others);
        }
        // A file that uses no other remaining file is in no circle.
        while let Some(leaf) = uses.keys().find(|room| uses[*room].iter().all(|used| !uses.contains_key(used))).cloned()
        {
            uses.remove(&leaf);
        }
        if !uses.is_empty() {
            found.push(format!("in {folder:?} there is a circle: {uses:#?}"));
        }
    }
    found
}

#[test]
fn a_module_uses_only_the_floors_below_its_own() {
    assert_eq!(upward(&House::of(sources_that_run()), FLOORS), [""; 0]);
}

#[test]
fn no_files_of_a_folder_use_each_other_in_a_circle() {
    assert_eq!(circles(&House::of(sources_that_run())), [""; 0]);
}

#[test]
fn control_a_circle_and_a_use_of_a_higher_floor_are_noticed() {
    let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
    let house = |back: &str| {
        House::of(vec![
            file("store/mod.rs", "mod low; mod high;"),
            file("store/high.rs", "use super::low::Low;"),
            file("store/low.rs", back),
        ])
    };
    let floors: &Floors = &[("store", &[&["low"], &["high"]])];
    let sound = house("use crate::turn::TurnId;");
    assert_eq!((upward(&sound, floors), circles(&sound)), (vec![], vec![]));
    let wrong = house("use crate::store::high::High;");
    assert_eq!(upward(&wrong, floors), ["store/low.rs uses high of [\"store\"], which is not on a floor below"]);
    assert_eq!(circles(&wrong).len(), 1);
}

#[test]
fn every_form_of_use_is_recognized() {
    let own = ["store", "redb", "files"].map(str::to_owned);
    let text = "use super::tables::{self, read::{ReadTables, Lazy as L}, META};\nuse crate::{turn, link::*};\n\
                fn f() { self::slot::Slot::new(super::super::contract::Commit::<u8>::of(head::Head)) }";
    let seen = used(&own, &["head".to_owned()].into(), text);
    let seen: Vec<_> = seen.iter().map(|way| way.join("::")).collect();
    let expected = [
        "store::redb::tables",
        "store::redb::tables::read::ReadTables",
        "store::redb::tables::read::Lazy",
        "store::redb::tables::META",
        "turn",
        "link::*",
        "store::redb::files::slot::Slot::new",
        "store::contract::Commit::",
        "store::redb::files::head::Head",
    ];
    assert_eq!(seen, expected);
}

/// Returns each front page, which is the comment at the top of a file, with the files and folders beside it.
fn front_pages() -> Vec<(PathBuf, String, BTreeSet<String>)> {
    let sources: BTreeMap<PathBuf, String> = sources().into_iter().collect();
    let mut folders = BTreeMap::<Way, BTreeSet<String>>::new();
    for path in sources.keys() {
        let mut way = way(path);
        while let Some(name) = way.pop() {
            folders.entry(way.clone()).or_default().insert(name);
        }
    }
    let pages = folders.into_iter().map(|(folder, mut names)| {
        names.retain(|name| !(folder.is_empty() && matches!(&**name, "lib" | "main")));
        let folder: PathBuf = folder.iter().collect();
        let candidates = [folder.join("mod.rs"), folder.with_extension("rs"), folder.join("lib.rs")];
        let path = candidates.into_iter().find(|path| sources.contains_key(path)).unwrap();
        let page = sources[&path].lines().take_while(|line| line.starts_with("//!")).map(|line| format!("{line}\n"));
        let page = page.collect();
        (path, page, names)
    });
    pages.collect()
}

#[test]
fn a_front_page_names_every_file_and_folder_beside_it_and_no_other() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (path, page, names) in front_pages() {
        checked += names.len();
        for name in names.iter().filter(|name| !page.contains(&format!("`{name}`"))) {
            wrong.push(format!("{} lacks `{name}`", path.display()));
        }
        let items = page.lines().filter_map(|line| line.strip_prefix("//! - `")?.split_once('`'));
        for (name, _) in items.filter(|(name, _)| !names.contains(*name)) {
            wrong.push(format!("{} lists `{name}`, which does not exist", path.display()));
        }
    }
    assert!(checked > 200, "the front pages were not found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_pure_core_uses_no_actor_database_runtime_or_clock() {
    let is_pure = |path: &Path| matches!(&*module(path), "report" | "turn") || path == Path::new("store/rule.rs");
    for (path, text) in sources().into_iter().filter(|(path, _)| is_pure(path)) {
        for forbidden in
            ["actix", "redb", "tokio", "tracing", "std::time::Instant", "SystemTime", "std::fs", "std::net"]
        {
            assert!(!text.contains(forbidden), "{} mentions {forbidden}", path.display());
        }
    }
}

/// The methods of `Meta` keep the facts about a file consistent with its contents, so no other code may write them.
#[test]
fn only_one_file_uses_the_keys_of_the_table_meta() {
    let meta = Path::new("store/redb/tables/meta.rs");
    let (owner, others): (Vec<_>, Vec<_>) = sources_that_run().into_iter().partition(|(path, _)| path == meta);
    assert!(owner[0].1.contains("META_CHECKPOINT = "), "the owner was not found");
    for (path, text) in others.into_iter().filter(|(path, _)| path.starts_with("store/redb")) {
        for name in ["META_", "\"meta\"", "open_table(META)"] {
            assert!(!text.contains(name), "{} mentions {name}", path.display());
        }
    }
}

#[test]
fn every_public_type_is_in_the_glossary() {
    let glossary = fs::read_to_string(root().join("GLOSSARY.md")).unwrap();
    let mut missing = Vec::new();
    for (path, text) in sources() {
        // The modules of the commands are private, so no user sees their types.
        if path.starts_with("cli") && path != Path::new("cli/mod.rs") {
            continue;
        }
        for line in text.lines().map(str::trim_start) {
            let Some(rest) =
                ["pub struct ", "pub enum ", "pub trait ", "pub type "].iter().find_map(|kind| line.strip_prefix(kind))
            else {
                continue;
            };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            if !name.is_empty() && !glossary.contains(&format!("`{name}`")) {
                missing.push(format!("{name} ({})", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "GLOSSARY.md lacks: {missing:#?}");
}

#[test]
fn a_type_in_the_glossary_exists() {
    let all: String = sources().into_iter().map(|(_, text)| text).collect();
    let glossary = fs::read_to_string(root().join("GLOSSARY.md")).unwrap();
    for row in glossary.lines().filter(|line| line.starts_with("| **")) {
        let types = row.split('|').nth(3).unwrap();
        for name in types.split('`').skip(1).step_by(2) {
            assert!(all.contains(&format!(" {name}")), "GLOSSARY.md has {name}, the sources do not");
        }
    }
}

/// Returns the modules that a text names as code, without names of files.
fn modules_in(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).filter(|name| !name.contains('.')).collect()
}

/// Returns the floors that the table of a document has, as sets of modules. `rows` are the cells of its rows: the first
/// names the floor, and the second the modules.
fn floors_of<'a>(rows: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<BTreeSet<&'a str>> {
    let mut floors = Vec::<(&str, BTreeSet<&str>)>::new();
    for (floor, modules) in rows {
        match floors.last_mut().filter(|(last, _)| *last == floor) {
            Some((_, known)) => known.extend(modules_in(modules)),
            None => floors.push((floor, modules_in(modules))),
        }
    }
    floors.into_iter().map(|(_, modules)| modules).collect()
}

/// Returns the floors of a folder, as sets of modules.
fn listed_floors(folder: &str) -> Vec<BTreeSet<&'static str>> {
    let (_, floors) = FLOORS.iter().find(|(listed, _)| *listed == folder).unwrap();
    floors.iter().map(|floor| floor.iter().copied().collect()).collect()
}

#[test]
fn documents_have_the_floors_that_are_checked() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (introduction, table) = architecture.split_once("\n| floor, from the lowest | modules |\n").unwrap();
    let rows = table.lines().skip(1).map_while(|line| line.strip_prefix("| ")?.split_once(" | "));
    let mut expected = listed_floors("");
    expected.push(BTreeSet::from([BESIDE]));
    let message = "the table of ARCHITECTURE.md differs from FLOORS in tests/it/tidy.rs";
    assert_eq!(floors_of(rows), expected, "{message}");
    let introduction = introduction.rsplit_once("## The floors").unwrap().1;
    for (folder, _) in FLOORS.iter().filter(|(folder, _)| !folder.is_empty()) {
        assert!(introduction.contains(&format!("`{folder}/`")), "\"The floors\" in ARCHITECTURE.md lacks `{folder}/`");
    }

    let page = fs::read_to_string(root().join("src/store/redb/mod.rs")).unwrap();
    let table = page.split_once("//! |---|---|---|\n").unwrap().1;
    let rows = table.lines().map_while(|line| line.strip_prefix("//! | ")?.split_once(" | "));
    let rows = rows.map(|(floor, rest)| (floor, rest.split(" | ").next().unwrap()));
    let message = "the table of src/store/redb/mod.rs differs from FLOORS in tests/it/tidy.rs";
    assert_eq!(floors_of(rows), listed_floors("store/redb"), "{message}");
}

#[test]
fn each_case_of_the_conformance_suite_is_in_its_list() {
    let folder = Path::new("store/conformance");
    let (list, files): (Vec<_>, Vec<_>) = sources()
        .into_iter()
        .filter(|(path, _)| path.starts_with(folder))
        .partition(|(path, _)| path.file_name().is_some_and(|name| name == "mod.rs"));
    let listed: BTreeSet<&str> = list[0].1.split(|c| !is_of_a_name(c)).collect();
    let mut count = 0;
    for (path, text) in &files {
        for case in text.split("\npub(crate) async fn ").skip(1) {
            let name = case.split(|c| !is_of_a_name(c)).next().unwrap();
            let message = "add it to the list of the macro in src/store/conformance/mod.rs";
            assert!(listed.contains(name), "no store is tested with {name} of {}: {message}", path.display());
            count += 1;
        }
    }
    assert!(count > 40, "the cases were not found");
}
