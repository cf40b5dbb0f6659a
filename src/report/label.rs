use std::fmt;

use serde::{Deserialize, Serialize};

use crate::turn::Label;

/// The class of a turn's reason in reports. A kernel's reason may be any text, so rare reasons share one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReasonClass {
    /// The model finished its answer.
    Stop,
    /// The user ended the turn.
    Aborted,
    /// The turn failed.
    Error,
    /// The turn reached its maximum number of steps.
    MaxSteps,
    /// The turn was abandoned: its events stopped coming.
    Abandoned,
    /// The turn was imported from another system.
    Imported,
    /// Any other reason.
    Other,
}

impl ReasonClass {
    /// All classes.
    pub const ALL: [Self; 7] =
        [Self::Stop, Self::Aborted, Self::Error, Self::MaxSteps, Self::Abandoned, Self::Imported, Self::Other];

    /// Returns the class of a reason.
    pub fn of(reason: &Label) -> Self {
        Self::ALL.into_iter().find(|class| class.as_str() == reason.as_str()).unwrap_or(Self::Other)
    }

    /// Returns the name of the class in reports, which is the reason as kernels write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Aborted => "aborted",
            Self::Error => "error",
            Self::MaxSteps => "max-steps",
            Self::Abandoned => "abandoned",
            Self::Imported => "imported",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ReasonClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The properties that all parts in a rollup share. In a report, only the properties of its grouping are present.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct RollupLabel {
    /// The model that was asked.
    pub model: Option<Label>,
    /// The model's provider.
    pub provider: Option<Label>,
    /// The product, team or user that the cost belongs to.
    pub project: Option<Label>,
    /// The class of the reason for which the turn ended.
    pub reason: Option<ReasonClass>,
}

/// The properties by which a report is grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub struct Grouping {
    /// Whether the report is grouped by model.
    pub model: bool,
    /// Whether it is grouped by provider.
    pub provider: bool,
    /// Whether it is grouped by project.
    pub project: bool,
    /// Whether it is grouped by the class of the reason.
    pub reason: bool,
}

impl Grouping {
    /// Returns the label with only the properties of this grouping.
    pub fn group(self, label: &RollupLabel) -> RollupLabel {
        RollupLabel {
            model: label.model.clone().filter(|_| self.model),
            provider: label.provider.clone().filter(|_| self.provider),
            project: label.project.clone().filter(|_| self.project),
            reason: label.reason.filter(|_| self.reason),
        }
    }
}

/// Which labels a report counts: those that match every value given here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// The only model to count.
    pub model: Option<Label>,
    /// The only provider to count.
    pub provider: Option<Label>,
    /// The only project to count.
    pub project: Option<Label>,
}

impl Selection {
    /// Returns whether the report counts the parts of turns that have this label.
    pub fn selects(&self, label: &RollupLabel) -> bool {
        let fits = |wanted: &Option<Label>, given: &Option<Label>| wanted.is_none() || wanted == given;
        fits(&self.model, &label.model) && fits(&self.provider, &label.provider) && fits(&self.project, &label.project)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> RollupLabel {
        RollupLabel {
            model: Some("m".into()),
            provider: None,
            project: Some("j".into()),
            reason: Some(ReasonClass::MaxSteps),
        }
    }

    #[test]
    fn a_reason_is_of_the_class_of_its_name() {
        for class in ReasonClass::ALL {
            assert_eq!(ReasonClass::of(&class.as_str().into()), class);
        }
        for other in ["", "Stop", "length", "stop "] {
            assert_eq!(ReasonClass::of(&other.into()), ReasonClass::Other);
        }
    }

    #[test]
    fn a_label_keeps_what_the_report_is_grouped_by() {
        assert_eq!(Grouping::default().group(&label()), RollupLabel::default());
        let all = Grouping { model: true, provider: true, project: true, reason: true };
        assert_eq!(all.group(&label()), label());
        let by_project = Grouping { project: true, ..Grouping::default() };
        assert_eq!(by_project.group(&label()), RollupLabel { project: Some("j".into()), ..RollupLabel::default() });
    }

    #[test]
    fn a_selection_takes_the_labels_with_all_of_its_values() {
        let none = Selection::default();
        assert!(none.selects(&label()) && none.selects(&RollupLabel::default()));
        let model = Selection { model: Some("m".into()), ..none.clone() };
        assert!(model.selects(&label()) && !model.selects(&RollupLabel::default()));
        let both = Selection { provider: Some("p".into()), ..model };
        assert!(!both.selects(&label()));
        assert!(both.selects(&RollupLabel { provider: Some("p".into()), ..label() }));
        let project = Selection { project: Some("other".into()), ..none };
        assert!(!project.selects(&label()));
    }

    #[test]
    fn a_label_is_small_in_a_row_and_the_same_when_read() {
        let bytes = postcard::to_stdvec(&label()).unwrap();
        assert_eq!(bytes.len(), 3 + 1 + 3 + 2);
        assert_eq!(postcard::from_bytes::<RollupLabel>(&bytes).unwrap(), label());
    }
}
