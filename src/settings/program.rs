use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::section::section;
use super::setting::{Section, Setting};
use super::{HttpSettings, LogSettings, PriceSettings, SpanLogSettings, StoreSettings, TurnSettings};

section! {
    /// Everything that can be set of the program, checked.
    pub struct Settings in "" {
        /// Address and port. An address that other machines can reach is refused without `--insecure`: there is no
        /// authentication. Port 0 takes any free one.
        listen as "http.listen": SocketAddr = (Ipv4Addr::LOCALHOST, 24210).into();

        /// The directory of the database; made if it does not exist. A relative path starts at the working directory. It
        /// may be a symbolic link, and so may the files in it: the files that the links lead to are written and replaced.
        data_dir as "store.data_dir": PathBuf = "./data".into();

        /// The span log: every closed span as a line of JSON in this file, for jq, DuckDB or SQLite. Empty: no
        /// span log.
        span_log_file as "span_log.file": Option<PathBuf> = None;

        sections {
            /// The HTTP server, but for its address.
            http: HttpSettings;
            /// Turns and conversations.
            turns: TurnSettings;
            /// The store, but for its place.
            store: StoreSettings;
            /// The prices of models.
            prices: PriceSettings;
            /// What is logged, and how.
            log: LogSettings;
            /// The span log, but for its place.
            span_log: SpanLogSettings;
        }
    }
}

/// The sections of a configuration file, in the order in which they are shown.
pub(crate) const SECTIONS: &[&str] = &["http", "turns", "store", "store.redb", "prices", "log", "span_log"];

impl Settings {
    /// Every setting, section by section.
    pub(crate) fn table(&mut self) -> Vec<Setting<'_>> {
        let mut table = Section::table(self);
        table.sort_by_key(|setting| SECTIONS.iter().position(|section| *section == setting.section()));
        table
    }
}
