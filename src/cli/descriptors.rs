//! File descriptors: each connection needs one, and the system limits how many of them a process may have.

use super::service::ServiceError;
use crate::http;
use crate::settings::HttpSettings;

/// The number of descriptors that the server needs besides those of connections and workers: for files, pipes, timers
/// and a backup.
const OWN: u64 = 48;

/// The number of descriptors that a worker needs.
const OF_A_WORKER: u64 = 8;

/// The minimum number of connections with which the service starts.
const LEAST_CONNECTIONS: u64 = 16;

/// How many connections the descriptor limit of the process allows.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    /// All connections of the settings are possible.
    All,
    /// Only this many connections.
    Fewer(usize),
    /// Too few connections to start the service. The process needs this many descriptors.
    None { needed: u64 },
}

/// Gets the descriptors that the settings need. It raises the limit of the process as far as the system allows, and
/// reduces the number of connections if that is not enough.
pub(super) fn make_room(settings: &mut HttpSettings) -> Result<(), ServiceError> {
    let fixed = OWN + OF_A_WORKER * http::worker_count(settings) as u64;
    let needed = fixed + http::with_headroom(settings.max_connections) as u64;
    let Some(limit) = raise_to(needed) else { return Ok(()) };
    match fit(limit, fixed, settings.max_connections) {
        Fit::All => {}
        Fit::Fewer(connections) => {
            tracing::warn!(
                limit,
                needed,
                connections,
                "the process may open too few files for `http.max_connections`, so fewer connections can be open: \
                 raise `ulimit -n`"
            );
            settings.max_connections = connections;
        }
        Fit::None { needed } => return Err(ServiceError::TooFewDescriptors { limit, needed }),
    }
    Ok(())
}

fn fit(limit: u64, fixed: u64, max_connections: usize) -> Fit {
    if limit >= fixed + http::with_headroom(max_connections) as u64 {
        return Fit::All;
    }
    let needed = fixed + LEAST_CONNECTIONS;
    match limit.checked_sub(fixed) {
        Some(left @ LEAST_CONNECTIONS..) => {
            // An eighth more connections are accepted, and at least one more.
            let connections = usize::try_from(left * 8 / 9).unwrap_or(max_connections) - 1;
            Fit::Fewer(connections.min(max_connections))
        }
        _ => Fit::None { needed },
    }
}

/// Raises the limit to `needed` if it is lower, as far as the system allows. Returns the limit; `None` if there is
/// none.
#[cfg(unix)]
fn raise_to(needed: u64) -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current?;
    if current >= needed {
        return Some(current);
    }
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    let limit = Rlimit { current: Some(raised), maximum };
    Some(if raised > current && setrlimit(Resource::Nofile, limit).is_ok() { raised } else { current })
}

#[cfg(not(unix))]
fn raise_to(_needed: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_within_the_limit() {
        assert_eq!(fit(64 + 1152, 64, 1024), Fit::All);
        assert_eq!(fit(64 + 1151, 64, 1024), Fit::Fewer(1022));
        assert_eq!(fit(31, 64, 1024), Fit::None { needed: 80 });
        assert_eq!(fit(79, 64, 1024), Fit::None { needed: 80 });
        for limit in 80..2000 {
            if let Fit::Fewer(connections) = fit(limit, 64, 1024) {
                assert!(
                    connections > 0 && 64 + http::with_headroom(connections) as u64 <= limit,
                    "{limit}: {connections}"
                );
            }
        }
    }
}
