use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{HostName, LogFormat, LogLevel, WebOrigin, Workers};

/// The most conversations of one request that are worked on at one time.
///
/// Without it a request that mentions more than the service takes on at once would be refused however often it came
/// again. For the same reason `turns.max_in_flight`, `turns.max_active_conversations` and `store.queue_commits` cannot
/// be set lower. Large enough that one fsync serves many conversations of a request.
pub const CONVERSATIONS_AT_ONCE: usize = 128;

/// Limits of a size in bytes, which has to let at least a small event pass.
pub(crate) const BYTES: RangeInclusive<u64> = 1024..=1 << 40;

/// Limits of how much is worked on at one time. Lower, and a request of many conversations would be refused as overload
/// however often it came again: so many of them are worked on at one time.
pub(crate) const fn work_up_to(most: u64) -> RangeInclusive<u64> {
    CONVERSATIONS_AT_ONCE as u64..=most
}

/// A struct of settings.
pub(crate) trait Section {
    /// Its settings, then those of the sections in it.
    fn table(&mut self) -> Vec<Setting<'_>>;
}

/// A line of the table of settings.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    /// Section and name, such as `http.listen` or `store.redb.cache_bytes`.
    pub(crate) key: &'static str,
    /// What it is for, line by line.
    pub(crate) comment: &'static [&'static str],
    pub(crate) value: ValueMut<'a>,
}

impl Setting<'_> {
    pub(crate) fn section(&self) -> &'static str {
        self.key.rsplit_once('.').map_or("", |(section, _)| section)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.key.rsplit_once('.').map_or(self.key, |(_, name)| name)
    }
}

/// The value of a setting, in its struct. What can be set follows from the type and, for a number, from its limits.
#[derive(Debug)]
pub(crate) enum ValueMut<'a> {
    Count(&'a mut usize, RangeInclusive<u64>),
    Duration(&'a mut Duration),
    Workers(&'a mut Workers),
    Address(&'a mut SocketAddr),
    Origins(&'a mut Vec<WebOrigin>),
    Hosts(&'a mut Vec<HostName>),
    Directory(&'a mut PathBuf),
    /// A file, or none, for which the text is empty.
    File(&'a mut Option<PathBuf>),
    Level(&'a mut LogLevel),
    Format(&'a mut LogFormat),
}

/// A number as a value of a setting.
pub(crate) trait Limited {
    fn in_table(&mut self, limits: RangeInclusive<u64>) -> ValueMut<'_>;
}

impl Limited for usize {
    fn in_table(&mut self, limits: RangeInclusive<u64>) -> ValueMut<'_> {
        ValueMut::Count(self, limits)
    }
}

/// Another value of a setting, whose type alone says what can be set.
pub(crate) trait Unlimited {
    fn in_table(&mut self) -> ValueMut<'_>;
}

macro_rules! unlimited {
    ($($type:ty => $kind:ident,)+) => {
        $(impl Unlimited for $type {
            fn in_table(&mut self) -> ValueMut<'_> {
                ValueMut::$kind(self)
            }
        })+
    };
}

unlimited! {
    Duration => Duration,
    Workers => Workers,
    SocketAddr => Address,
    Vec<WebOrigin> => Origins,
    Vec<HostName> => Hosts,
    PathBuf => Directory,
    Option<PathBuf> => File,
    LogLevel => Level,
    LogFormat => Format,
}
