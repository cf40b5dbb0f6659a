//! Without its features, the library has few dependencies: only what actors and a store need.

use std::collections::BTreeSet;
use std::process::Command;

/// All direct dependencies of the library without features. A new one needs a decision, because every user gets it.
const DIRECT: &[&str] = &[
    "actix",
    "actix-rt",
    "hashbrown",
    "indexmap",
    "jiff",
    "postcard",
    "redb",
    "rustix",
    "ryu-js",
    "serde",
    "serde_json",
    "siphasher",
    "thiserror",
    "tokio",
    "tracing",
    "uuid",
    "xxhash-rust",
];

/// Packages that only a server, a command line, prices or a `tracing` layer need.
const HEAVY: &[&str] = &[
    "actix-cors",
    "actix-http",
    "actix-server",
    "actix-web",
    "anyhow",
    "clap",
    "feruca",
    "genai-prices",
    "h2",
    "hyper",
    "maud",
    "mimalloc",
    "opentelemetry",
    "opentelemetry_sdk",
    "reqwest",
    "toml",
    "tonic",
    "tracing-subscriber",
    "ureq",
];

/// Returns the names of all packages that a program gets if it depends on the library with these features. It works
/// offline only for features with which this test was built, because other packages may not have been fetched.
fn dependencies(features: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn without_features_the_direct_dependencies_are_these_and_no_others() {
    for features in [&["--no-default-features"][..], &["--no-default-features", "--features", "testing"]] {
        let mut direct = dependencies(&[features, &["--depth", "1"]].concat());
        assert!(direct.remove("turn-metrics"), "the output of `cargo tree` was not understood: {direct:?}");
        assert!(direct.iter().eq(DIRECT), "with {features:?}: {direct:#?}");
    }
}

fn heavy_among(packages: &BTreeSet<String>) -> Vec<&str> {
    HEAVY.iter().copied().filter(|heavy| packages.contains(*heavy)).collect()
}

#[test]
fn without_default_features_there_is_no_server_no_command_line_and_no_subscriber() {
    for features in [&["--no-default-features"][..], &["--no-default-features", "--features", "testing"]] {
        let light = dependencies(features);
        assert_eq!(heavy_among(&light), [""; 0], "with {features:?}");
        assert!(
            light.contains("actix") && light.contains("redb"),
            "the output of `cargo tree` was not understood: {light:?}"
        );
    }
}

#[test]
fn each_heavy_package_is_one_that_the_server_needs() {
    // This checks that the list has no name that is in no dependency tree. It uses the default features: a tree needs
    // all of its packages, and `cargo test` alone does not fetch those of other features.
    let server = dependencies(&[]);
    for heavy in [
        "actix-web",
        "actix-http",
        "actix-server",
        "clap",
        "feruca",
        "genai-prices",
        "toml",
        "tracing-subscriber",
        "ureq",
    ] {
        assert!(server.contains(heavy), "{heavy} is in no tree");
    }
}
