use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::section::section;
use super::setting::{Section, Setting};
use super::{
    HttpSettings, LogSettings, PriceSettings, ReportSettings, RetentionSettings, SpanLogSettings, StoreSettings,
    TurnSettings,
};

section! {
    /// All settings of the program, checked.
    pub struct Settings in "" {
        /// Address and port. An address that other machines can reach is refused without `--insecure`, because the
        /// server has no authentication. Port 0 takes any free port.
        listen as "http.listen": SocketAddr = (Ipv4Addr::LOCALHOST, 24210).into();

        /// The directory of the database. It is created if it does not exist. A relative path starts at the working
        /// directory. It may be a symbolic link, and so may the files in it: the files that the links lead to are
        /// written and replaced.
        data_dir as "store.data_dir": PathBuf = "./data".into();

        /// The file of the span log, which has every closed span as a line of JSON, for jq, DuckDB or SQLite. Empty
        /// means no span log.
        span_log_file as "span_log.file": Option<PathBuf> = None;

        sections {
            /// The HTTP server, except for its address.
            http: HttpSettings;
            /// Turns and conversations.
            turns: TurnSettings;
            /// The store, except for its directory.
            store: StoreSettings;
            /// The prices of models.
            prices: PriceSettings;
            /// How long turns are kept.
            retention: RetentionSettings;
            /// How reports count time.
            reports: ReportSettings;
            /// What is logged, and how.
            log: LogSettings;
            /// The span log, except for its file.
            span_log: SpanLogSettings;
        }
    }
}

/// The sections of a configuration file, in the order in which they are shown.
pub(crate) const SECTIONS: &[&str] =
    &["http", "turns", "store", "store.redb", "retention", "prices", "reports", "log", "span_log"];

impl Settings {
    /// Every setting, section by section.
    pub(crate) fn table(&mut self) -> Vec<Setting<'_>> {
        let mut table = Section::table(self);
        table.sort_by_key(|setting| SECTIONS.iter().position(|section| *section == setting.section()));
        table
    }
}
