//! Writes the file of all defaults, `config/default.toml`.

use std::fmt::Write;

use crate::settings::Settings;
use crate::settings::setting::ValueMut;

const HEAD: &str = "\
# Every setting, its default and the reason for it. The defaults are overridden by the file of `--config FILE`, then by
# the environment (`TURN_METRICS__HTTP__LISTEN` is `listen` of `[http]`; the items of a list are separated by commas),
# then by the flags of the command line. `turn-metrics config` prints the settings in force and where each value comes
# from; `turn-metrics config --defaults` prints this file.
#
# Durations are texts such as \"250ms\", \"30s\", \"24h\". Sizes are in bytes. Nothing can be set to zero,
# unless its comment says what 0 does.
";

/// Returns a configuration file with every setting at its default, each with its comment above it.
pub fn default_file() -> String {
    let mut file = HEAD.to_owned();
    let mut section = "";
    for setting in Settings::default().table() {
        if setting.section() != section {
            section = setting.section();
            let _ = write!(file, "\n[{section}]");
        }
        file.push('\n');
        for line in setting.comment {
            let _ = writeln!(file, "#{line}");
        }
        let value = match &setting.value {
            ValueMut::Count(count, _) => grouped(**count),
            other => other.literal(),
        };
        let _ = writeln!(file, "{} = {value}", setting.name());
    }
    file
}

/// Writes a number. If it has five digits or more, they are in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut grouped = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            grouped.push('_');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Origin, layer};
    use crate::settings::CONVERSATIONS_AT_ONCE;
    use crate::settings::setting::work_up_to;

    #[test]
    fn the_default_file_in_the_repository_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml");
        let file = default_file();
        if std::env::var_os("UPDATE_CONFIG").is_some() {
            fs::write(path, &file).unwrap();
        }
        assert!(
            fs::read_to_string(path).unwrap() == file,
            "config/default.toml is out of date; write it again with UPDATE_CONFIG=1"
        );
    }

    #[test]
    fn the_default_file_gives_every_setting_the_value_that_the_code_has() {
        let mut settings = Settings::default();
        let raw_settings = layer::from_toml(&default_file(), |_| Origin::Default).unwrap();
        assert_eq!(raw_settings.len(), settings.table().len());
        for raw in raw_settings {
            let setting = settings.table().into_iter().find(|setting| setting.key == raw.key).unwrap();
            assert!(setting.value.apply(&raw.value), "{}", raw.key);
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn the_comments_name_the_number_of_conversations_that_a_request_needs() {
        let reason = format!("At least {CONVERSATIONS_AT_ONCE}");
        let mut settings = Settings::default();
        let is_work =
            |value: &ValueMut<'_>| matches!(value, ValueMut::Count(_, limits) if *limits == work_up_to(*limits.end()));
        let limited: Vec<_> = settings.table().into_iter().filter(|setting| is_work(&setting.value)).collect();
        assert!(!limited.is_empty());
        for setting in limited {
            let comment: String = setting.comment.concat();
            assert!(comment.contains(&reason), "the comment of {} must say {reason:?}", setting.key);
        }
    }

    #[test]
    fn a_setting_that_can_be_zero_says_what_that_does() {
        let mut settings = Settings::default();
        let can_be_zero = |value: &ValueMut<'_>| matches!(value, ValueMut::Count(_, limits) if limits.contains(&0));
        let such: Vec<_> = settings.table().into_iter().filter(|setting| can_be_zero(&setting.value)).collect();
        assert!(!such.is_empty());
        for setting in such {
            assert!(setting.comment.concat().contains(" 0 "), "the comment of {} must say it", setting.key);
        }
    }

    #[test]
    fn a_long_number_is_written_in_groups() {
        for (number, written) in [(0, "0"), (4096, "4096"), (20_000, "20_000"), (16_777_216, "16_777_216")] {
            assert_eq!(grouped(number), written);
        }
    }
}
