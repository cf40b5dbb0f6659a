use std::fs;

use super::*;
use crate::settings::{CONVERSATIONS_AT_ONCE, WebOrigin};

fn variable(name: &str, value: &str) -> (OsString, OsString) {
    (name.into(), value.into())
}

fn load_with(environment: &[(&str, &str)]) -> Result<Configuration, ConfigError> {
    let environment = environment.iter().map(|(name, value)| variable(name, value)).collect();
    Configuration::load(&Sources { environment, ..Sources::default() })
}

/// Returns the error message for a configuration file with this text. `F` stands for the path of the file.
fn file_error(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.toml");
    fs::write(&path, text).unwrap();
    let error = Configuration::load(&Sources { file: Some(path.clone()), ..Sources::default() }).unwrap_err();
    error.to_string().replace(path.to_str().unwrap(), "F")
}

/// The names of the settings in a section, as a message lists them.
fn names_in(section: &str) -> String {
    let mut settings = Settings::default();
    let table = settings.table();
    let names = table.iter().filter(|setting| setting.section() == section);
    let names: Vec<_> = names.map(|setting| setting.key.rsplit('.').next().unwrap()).collect();
    assert!(!names.is_empty(), "{section}");
    names.join(", ")
}

#[test]
fn each_layer_overrides_the_ones_below_it_and_leaves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.toml");
    fs::write(&path, "[http]\nlisten = \"127.0.0.1:1\"\nmax_connections = 11\nbody_timeout = \"1m\"\n").unwrap();
    let sources = Sources {
        file: Some(path.clone()),
        environment: vec![
            variable("TURN_METRICS__HTTP__LISTEN", "127.0.0.1:2"),
            variable("TURN_METRICS__HTTP__MAX_CONNECTIONS", "1_2"),
            variable("TURN_METRICS__HTTP__ALLOWED_ORIGINS", "https://a.example, http://[::1]:3000"),
            variable("UNRELATED", "x"),
        ],
        flags: vec![Flag { name: "--listen", key: "http.listen", value: "127.0.0.1:3".into() }],
    };
    let configuration = Configuration::load(&sources).unwrap();
    let http = &configuration.settings().http;
    assert_eq!(configuration.settings().listen.port(), 3);
    assert_eq!(http.max_connections, 12);
    assert_eq!(http.body_timeout.as_secs(), 60);
    assert_eq!(http.header_timeout.as_secs(), 5);
    let origins: Vec<_> = http.allowed_origins.iter().map(WebOrigin::as_str).collect();
    assert_eq!(origins, ["https://a.example", "http://[::1]:3000"]);

    let shown = configuration.to_string();
    for line in [
        "listen = \"127.0.0.1:3\"  # flag --listen".to_owned(),
        "max_connections = 12  # environment variable TURN_METRICS__HTTP__MAX_CONNECTIONS".to_owned(),
        format!("body_timeout = \"1m\"  # file {}, line 4", path.display()),
        "header_timeout = \"5s\"  # built-in default".to_owned(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
}

#[test]
fn the_displayed_configuration_is_a_valid_configuration_file() {
    let shown = load_with(&[
        ("TURN_METRICS__STORE__DATA_DIR", "C:\\data \"x\"\n"),
        ("TURN_METRICS__HTTP__WORKERS", "3"),
        ("TURN_METRICS__TURNS__ABANDON_AFTER", "36h 5ms"),
        ("TURN_METRICS__SPAN_LOG__FILE", "/var/log/spans.ndjson"),
    ])
    .unwrap();
    let mut again = Configuration { settings: Settings::default(), origins: BTreeMap::new() };
    again.apply(layer::from_toml(&shown.to_string(), |_| Origin::Default).unwrap()).unwrap();
    assert_eq!(again.settings(), shown.settings());
}

#[test]
fn an_unknown_setting_in_a_file_is_reported_with_its_line() {
    assert_eq!(
        file_error("[log]\n\nlevl = 'info'\n"),
        "unknown setting `log.levl` = 'info' from file F, line 3; allowed: in [log] level, format"
    );
    assert_eq!(
        file_error("[htp]\nlisten = 1\n"),
        "unknown setting `htp` = {...} from file F, line 1; allowed: the sections http, turns, store, store.redb, retention, prices, reports, log, span_log"
    );
    assert_eq!(
        file_error("http = 5\n"),
        "bad value `http` = 5 from file F, line 1; allowed: the sections http, turns, store, store.redb, retention, prices, reports, log, span_log"
    );
}

#[test]
fn a_bad_value_in_a_file_is_reported_with_its_line() {
    assert_eq!(
        file_error("[http]\nmax_connections = 0\n"),
        "bad value `http.max_connections` = 0 from file F, line 2; allowed: a whole number from 1 to 1000000"
    );
    assert_eq!(
        file_error("[http]\nbody_timeout = 30\n"),
        "bad value `http.body_timeout` = 30 from file F, line 2; \
         allowed: a duration from \"1ms\" to \"365days\", such as \"30s\""
    );
    for (section, line) in [
        ("http", "max_connections = \"5\""),
        ("http", "max_connections = -1"),
        ("http", "max_connections = 1.5"),
        ("http", "max_connections = 99999999999999999999"),
        ("http", "max_connections.x = 1"),
        ("http", "workers = 0"),
        ("http", "workers = \"many\""),
        ("http", "keep_alive = \"0s\""),
        ("http", "keep_alive = \"soon\""),
        ("http", "keep_alive = \"2years\""),
        ("http", "listen = \"localhost\""),
        ("http", "allowed_origins = \"https://a.example\""),
        ("http", "allowed_origins = [\"*\"]"),
        ("http", "allowed_origins = [\"https://a.example/\"]"),
        ("http", "allowed_origins = [\"https://A.example\"]"),
        ("http", "allowed_origins = [\"https://a.example:0\"]"),
        ("http", "allowed_origins = [\"https://a.example:443\"]"),
        ("http", "allowed_origins = [1]"),
        ("http", "host_names = \"a.example\""),
        ("http", "host_names = [\"a.example:80\"]"),
        ("http", "host_names = [\"*\"]"),
        ("http", "workers = 513"),
        ("turns", "max_active_conversations = 127"),
        ("turns", "max_in_flight = 127"),
        ("store", "queue_commits = 127"),
        ("store", "data_dir = \"\""),
        ("store", "redb = 5"),
        ("store.redb", "cache_bytes = 1023"),
        ("log", "level = \"loud\""),
        ("log", "format = true"),
        ("span_log", "file = true"),
        ("span_log", "max_files = 0"),
    ] {
        let message = file_error(&format!("[{section}]\n{line}\n"));
        let name = line.split([' ', '.']).next().unwrap();
        assert!(message.starts_with(&format!("bad value `{section}.{name}` = ")), "{line}: {message}");
    }
}

#[test]
fn limits_cannot_be_lower_than_one_request_needs() {
    for key in ["TURNS__MAX_ACTIVE_CONVERSATIONS", "TURNS__MAX_IN_FLIGHT", "STORE__QUEUE_COMMITS"] {
        let variable = format!("TURN_METRICS__{key}");
        load_with(&[(&variable, &CONVERSATIONS_AT_ONCE.to_string())]).unwrap();
        let message = load_with(&[(&variable, &(CONVERSATIONS_AT_ONCE - 1).to_string())]).unwrap_err().to_string();
        assert!(message.contains(&format!("a whole number from {CONVERSATIONS_AT_ONCE} to ")), "{message}");
    }
}

#[test]
fn invalid_toml_is_reported_with_its_line() {
    let message = file_error("[http]\nlisten = \n");
    assert!(message.starts_with("file F, line 2: not valid TOML: "), "{message}");
    assert!(!message.contains('\n'), "{message}");
    let message = file_error("[http]\nworkers = 1\nworkers = 2\n");
    assert!(message.starts_with("file F, line 3: not valid TOML: duplicate key"), "{message}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let file = Some("/nonexistent/settings.toml".into());
    let error = Configuration::load(&Sources { file, ..Sources::default() }).unwrap_err();
    assert_eq!(error.to_string(), "cannot read configuration file /nonexistent/settings.toml");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn an_environment_variable_with_the_prefix_must_name_a_setting() {
    assert_eq!(
        load_with(&[("TURN_METRICS__HTTP__LISTN", "x")]).unwrap_err().to_string(),
        format!(
            "unknown setting `http.listn` = \"x\" from environment variable TURN_METRICS__HTTP__LISTN; allowed: in [http] {}",
            names_in("http")
        )
    );
    assert_eq!(
        load_with(&[("TURN_METRICS__LISTEN", "x")]).unwrap_err().to_string(),
        "unknown setting `listen` = \"x\" from environment variable TURN_METRICS__LISTEN; allowed: the sections \
         http, turns, store, store.redb, retention, prices, reports, log, span_log"
    );
    assert!(load_with(&[("TURN_METRICS__http__listen", "127.0.0.1:1")]).is_err());
}

#[test]
fn a_time_zone_is_named_or_left_to_the_system() {
    let zone_of = |value: &str| {
        let loaded = load_with(&[("TURN_METRICS__REPORTS__TIME_ZONE", value)]);
        loaded.map(|configuration| configuration.settings.reports.time_zone.map(|zone| zone.to_string()))
    };
    assert_eq!(zone_of("Asia/Kolkata").unwrap().as_deref(), Some("Asia/Kolkata"));
    assert_eq!(zone_of("").unwrap(), None);
    assert_eq!(
        zone_of("Mars/Olympus").unwrap_err().to_string(),
        "bad value `reports.time_zone` = \"Mars/Olympus\" from environment variable TURN_METRICS__REPORTS__TIME_ZONE; \
         allowed: the name of a time zone, such as \"Europe/Berlin\", or an empty text for that of the system"
    );
}

#[test]
fn a_bad_value_in_the_environment_or_a_flag_is_reported_with_its_name() {
    assert_eq!(
        load_with(&[("TURN_METRICS__LOG__LEVEL", "\u{1b}[31mloud")]).unwrap_err().to_string(),
        "bad value `log.level` = \"\\u{1b}[31mloud\" from environment variable TURN_METRICS__LOG__LEVEL; \
         allowed: \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\""
    );
    let flags = vec![Flag { name: "--listen", key: "http.listen", value: "24210".into() }];
    assert_eq!(
        Configuration::load(&Sources { flags, ..Sources::default() }).unwrap_err().to_string(),
        "bad value `http.listen` = \"24210\" from flag --listen; \
         allowed: an IP address and a port, such as \"127.0.0.1:24210\" or \"[::1]:24210\""
    );
    for value in ["", " 5", "+5", "-5", "5s", "_"] {
        assert!(load_with(&[("TURN_METRICS__HTTP__MAX_CONNECTIONS", value)]).is_err(), "{value}");
    }
}

#[test]
fn a_line_must_fit_into_a_body_whichever_layers_set_the_limits() {
    assert_eq!(
        load_with(&[("TURN_METRICS__HTTP__MAX_BODY_BYTES", "2048")]).unwrap_err().to_string(),
        "bad value `http.max_line_bytes` = 4194304 from built-in default; allowed: at most `http.max_body_bytes`, \
         2048 from environment variable TURN_METRICS__HTTP__MAX_BODY_BYTES"
    );
}

#[test]
fn a_long_value_is_quoted_in_part() {
    let message = file_error(&format!("[log]\nlevel = \"{}\"\n", "x".repeat(10_000)));
    assert!(message.len() < 300, "{message}");
}

#[test]
fn the_engine_has_a_section_of_its_own_in_a_file_and_in_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.toml");
    let environment = vec![variable("TURN_METRICS__STORE__REDB__JOURNAL_BYTES", "4096")];
    for text in ["[store]\nbatch_commits = 7\n[store.redb]\ncache_bytes = 2048\n", "store.redb.cache_bytes = 2048\n"] {
        fs::write(&path, text).unwrap();
        let (file, environment) = (Some(path.clone()), environment.clone());
        let configuration = Configuration::load(&Sources { file, environment, ..Sources::default() }).unwrap();
        let redb = &configuration.settings().store.redb;
        assert_eq!((redb.cache_bytes, redb.journal_bytes), (2048, 4096));
        let shown = configuration.to_string();
        assert!(shown.contains("\n[store.redb]\ncache_bytes = 2048  # file "), "{shown}");
    }
    assert_eq!(
        file_error("[store]\ncache_bytes = 2048\n"),
        format!(
            "unknown setting `store.cache_bytes` = 2048 from file F, line 2; allowed: in [store] {}, [store.redb]",
            names_in("store")
        )
    );
    assert_eq!(
        file_error("[store.redb]\ncache = 2048\n"),
        format!(
            "unknown setting `store.redb.cache` = 2048 from file F, line 2; allowed: in [store.redb] {}",
            names_in("store.redb")
        )
    );
    assert_eq!(
        file_error("[store.other]\nurl = 'x'\n"),
        format!(
            "unknown setting `store.other` = {{...}} from file F, line 1; allowed: in [store] {}, [store.redb]",
            names_in("store")
        )
    );
}

#[test]
fn every_setting_is_in_a_known_section() {
    for setting in Settings::default().table() {
        assert!(crate::settings::SECTIONS.contains(&setting.section()), "{}", setting.key);
    }
}
