use super::section::section;
use crate::report::Zone;

section! {
    /// How reports count time.
    pub struct ReportSettings in "reports" {
        /// The time zone that decides when the days, weeks and months of a report begin, unless a request names another
        /// zone: a name such as "Europe/Berlin" or "UTC". Empty: the zone of the system, or UTC if the system names
        /// none.
        time_zone: Option<Zone> = None;
    }
}
