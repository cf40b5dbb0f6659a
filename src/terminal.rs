//! Whether a terminal supports escape sequences and colours.

use std::env;
use std::ffi::OsStr;

/// Returns whether output to a terminal may be coloured, according to the environment of this process.
pub(crate) fn is_color_wanted() -> bool {
    takes_color(env::var_os("NO_COLOR").as_deref(), env::var_os("TERM").as_deref())
}

/// Returns whether a terminal understands escape sequences, such as those of a progress bar, according to the
/// environment of this process.
pub(crate) fn takes_escapes() -> bool {
    understands_escapes(env::var_os("TERM").as_deref())
}

/// A `NO_COLOR` that is not empty turns colours off.
fn takes_color(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    understands_escapes(term) && no_color.is_none_or(OsStr::is_empty)
}

/// A terminal named `dumb`, or without a name, shows escape sequences as text. On Windows, terminals have no name.
fn understands_escapes(term: Option<&OsStr>) -> bool {
    match term {
        Some(term) => !term.is_empty() && term != "dumb",
        None => cfg!(windows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_turns_colours_off_unless_it_is_empty() {
        let term = Some("xterm".as_ref());
        assert!(takes_color(None, term));
        assert!(takes_color(Some("".as_ref()), term));
        assert!(!takes_color(Some("1".as_ref()), term));
    }

    #[test]
    fn a_dumb_or_unknown_terminal_gets_no_colours() {
        for term in ["dumb", ""] {
            assert!(!takes_color(None, Some(term.as_ref())), "{term:?}");
            assert!(!understands_escapes(Some(term.as_ref())), "{term:?}");
        }
        assert_eq!(takes_color(None, None), cfg!(windows));
        assert_eq!(understands_escapes(None), cfg!(windows));
        assert!(understands_escapes(Some("xterm".as_ref())));
    }
}
