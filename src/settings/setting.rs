use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{HostName, LogFormat, LogLevel, WebOrigin, Workers};
use crate::report::Zone;

/// The maximum number of conversations of one request that are processed at one time.
///
/// `turns.max_in_flight`, `turns.max_active_conversations` and `store.queue_commits` cannot be set lower than this
/// number. Otherwise the service would refuse a request with that many conversations as overload, however often it is
/// sent. The number is large enough that one fsync serves many conversations of a request.
pub const CONVERSATIONS_AT_ONCE: usize = 128;

/// The limits of a size in bytes. A size must have room for at least a small event.
pub(crate) const BYTES: RangeInclusive<u64> = 1024..=1 << 40;

/// The values allowed for a setting that limits how much is processed at one time. The lowest is as much as a single
/// request may need. If the setting could be lower, the service would refuse such a request as overload, however often
/// it is sent.
pub(crate) const fn work_up_to(most: u64) -> RangeInclusive<u64> {
    CONVERSATIONS_AT_ONCE as u64..=most
}

/// A struct of settings.
pub(crate) trait Section {
    /// Returns the settings of this struct, then those of the sections in it.
    fn table(&mut self) -> Vec<Setting<'_>>;
}

/// An entry in the table of settings.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    /// Section and name, such as `http.listen` or `store.redb.cache_bytes`.
    pub(crate) key: &'static str,
    /// The comment of the setting, line by line.
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

/// A reference to the value of a setting in its struct. The type determines the allowed values, together with the
/// limits if the value is a number.
#[derive(Debug)]
pub(crate) enum ValueMut<'a> {
    Count(&'a mut usize, RangeInclusive<u64>),
    Duration(&'a mut Duration),
    /// How long something is kept; `None` for ever.
    Keep(&'a mut Option<Duration>),
    Workers(&'a mut Workers),
    Address(&'a mut SocketAddr),
    Origins(&'a mut Vec<WebOrigin>),
    Hosts(&'a mut Vec<HostName>),
    Directory(&'a mut PathBuf),
    /// The path of a file; an empty text means none.
    File(&'a mut Option<PathBuf>),
    /// A time zone by its name; an empty text means none.
    Zone(&'a mut Option<Zone>),
    Level(&'a mut LogLevel),
    Format(&'a mut LogFormat),
}

/// A number that is the value of a setting.
pub(crate) trait Limited {
    fn in_table(&mut self, limits: RangeInclusive<u64>) -> ValueMut<'_>;
}

impl Limited for usize {
    fn in_table(&mut self, limits: RangeInclusive<u64>) -> ValueMut<'_> {
        ValueMut::Count(self, limits)
    }
}

/// Any other value of a setting. Its type alone determines the allowed values.
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
    Option<Duration> => Keep,
    Workers => Workers,
    SocketAddr => Address,
    Vec<WebOrigin> => Origins,
    Vec<HostName> => Hosts,
    PathBuf => Directory,
    Option<PathBuf> => File,
    Option<Zone> => Zone,
    LogLevel => Level,
    LogFormat => Format,
}
