//! What the tests of charts share.

use super::chart::{Series, Slot};

/// Returns slots with these labels.
pub(crate) fn slots(count: usize) -> Vec<Slot> {
    (1..=count).map(|n| Slot { label: format!("s{n}"), name: format!("slot {n}") }).collect()
}

pub(crate) fn series(name: &str, values: &[f64]) -> Series {
    Series { name: name.to_owned(), fill: 0, values: values.iter().map(|value| Some(*value)).collect() }
}

/// Returns the values of an attribute, in the order of the text.
pub(crate) fn attributes(svg: &str, element: &str, name: &str) -> Vec<String> {
    let (begin, named) = (format!("<{element} "), format!("{name}=\""));
    let elements = svg.split(&begin).skip(1).filter_map(|rest| rest.split('>').next());
    let values = elements.filter_map(|element| element.split_once(&named)?.1.split('"').next());
    values.map(str::to_owned).collect()
}
