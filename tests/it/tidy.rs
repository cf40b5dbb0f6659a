//! The rules of the house, held against the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the library from the ground up: each may use those of the floors before its own.
const FLOORS: &[&[&str]] = &[
    &["turn"],
    &["clock", "line_queue", "link", "settings", "simulate", "terminal"],
    &["config", "journal", "otel", "store"],
    &["actors"],
    &["recorder", "runtime", "telemetry"],
    &["http"],
    &["cli"],
];

/// Stands beside the floors: tests use it, and it uses what it stands in for.
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

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The top-level module a file belongs to.
fn module(path: &Path) -> String {
    Path::new(path.iter().next().unwrap()).file_stem().unwrap().to_string_lossy().into_owned()
}

/// The text without its tests, which may use what they like.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

fn is_test_file(path: &Path) -> bool {
    path.iter()
        .filter_map(|part| Path::new(part).file_stem()?.to_str())
        .any(|name| matches!(name, "properties" | "stand_in") || name.ends_with("tests"))
}

#[test]
fn a_module_uses_only_the_floors_below_its_own() {
    for (path, text) in sources() {
        let module = module(&path);
        if is_test_file(&path) || matches!(&*module, "lib" | "main" | BESIDE) {
            continue;
        }
        let own = floor(&module).unwrap_or_else(|| panic!("{module} stands on no floor"));
        for used in without_tests(&text).split("crate::").skip(1) {
            // Several modules at once would go unseen here, and an asterisk hides them from everybody.
            assert!(!used.starts_with(['{', '*']), "{} uses several modules in one go", path.display());
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if used.is_empty() || used == module {
                continue;
            }
            let below = floor(&used).is_some_and(|floor| floor < own);
            assert!(below, "{} uses crate::{used}, which is not below it", path.display());
        }
    }
}

#[test]
fn the_pure_core_knows_no_actor_database_runtime_or_clock() {
    for (path, text) in sources().into_iter().filter(|(path, _)| module(path) == "turn") {
        for forbidden in
            ["actix", "redb", "tokio", "tracing", "std::time::Instant", "SystemTime", "std::fs", "std::net"]
        {
            assert!(!text.contains(forbidden), "{} mentions {forbidden}", path.display());
        }
    }
}

#[test]
fn every_public_type_is_in_the_glossary() {
    let glossary = fs::read_to_string(root().join("GLOSSARY.md")).unwrap();
    let mut missing = Vec::new();
    for (path, text) in sources() {
        // The commands' own modules are private: their types are seen by nobody outside.
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
