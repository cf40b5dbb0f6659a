use serde::Deserialize;

use super::super::BadEvent;
use super::structure::Structure;
use super::structure_error::{StructureError, StructureErrorKind, Subject};
use super::value::Value;

/// A line that is one JSON object about a sealed turn, as an export has it.
///
/// The rules are those of a line that is an event: its structure is followed to the last brace, an unknown field is
/// ignored, an explicit `null` means an absent field, and a known field that occurs twice is an error. It needs no
/// `type`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TurnObject<'a>(&'a [u8]);

impl<'a> TurnObject<'a> {
    /// Checks the structure of a line. `is_body` says that the line is a whole body, which may have line breaks.
    pub(crate) fn of(line: &'a [u8], is_body: bool) -> Result<Self, BadEvent> {
        let mut structure = Structure::default();
        let followed = structure.feed(line).and_then(|()| match structure.finish() {
            Err(StructureError { kind: StructureErrorKind::TypeMissing | StructureErrorKind::TypeNull, .. }) => Ok(()),
            finished => finished.map(drop),
        });
        followed.map(|()| Self(line)).map_err(|error| {
            let error = if is_body { error.in_body() } else { error };
            BadEvent::of_structure(StructureError { subject: Subject::Turn, ..error })
        })
    }

    /// Returns which of these fields the object has. A field that is null counts as absent.
    pub(crate) fn has<const N: usize>(self, names: [&'static str; N]) -> Result<[bool; N], BadEvent> {
        let values = Value::of_event(self.0).fields().values_of(names);
        values.map(|values| values.map(|value| value.is_some())).map_err(|error| BadEvent::of_field(self.0, &error))
    }

    /// Returns whether the array at this path of names has more than this number of items. What is no array has none.
    pub(crate) fn has_more_items(self, path: &[&'static str], most: usize) -> bool {
        let mut value = Some(Value::of_event(self.0));
        for name in path {
            value = value.and_then(|value| value.field(name));
        }
        value.is_some_and(|value| value.has_more_items(most))
    }

    /// Reads the fields of the object.
    pub(crate) fn read<T: Deserialize<'a>>(self) -> Result<T, BadEvent> {
        T::deserialize(Value::of_event(self.0)).map_err(|error| BadEvent::of_field(self.0, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Numbers {
        numbers: Vec<u64>,
        inner: Option<Vec<Inner>>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        a: u64,
    }

    fn read(line: &str) -> Result<Numbers, String> {
        let object = TurnObject::of(line.as_bytes(), false).map_err(|error| error.to_string())?;
        object.read().map_err(|error| error.to_string())
    }

    #[test]
    fn arrays_are_read_and_errors_in_them_have_the_path() {
        let numbers = |numbers: &[u64]| Ok(Numbers { numbers: numbers.to_vec(), inner: None });
        assert_eq!(read(r#"{"numbers":[]}"#), numbers(&[]));
        assert_eq!(read(r#" {"numbers" : [ 1 ,2, 3 ], "inner": null, "x": [[{}]] } "#), numbers(&[1, 2, 3]));
        let inner = read(r#"{"numbers":[],"inner":[{"a":1},{"a":2,"b":[3]}]}"#).unwrap().inner;
        assert_eq!(inner, Some(vec![Inner { a: 1 }, Inner { a: 2 }]));
        for (line, message) in [
            (r#"{"numbers":[1,"2"]}"#, "`numbers.1` must be a whole number, not \"2\""),
            (r#"{"numbers":{}}"#, "`numbers` must be an array, not an object"),
            (r#"{"numbers":[],"inner":[[1]]}"#, "`inner.0` must be an object, not an array"),
            (r#"{"numbers":[],"inner":[{"a":1},{}]}"#, "`inner.1.a` is missing"),
            (r#"{"numbers":[],"inner":[null]}"#, "`inner.0` must be an object, not null"),
            (r#"{"numbers":[],"numbers":[]}"#, "`numbers` stands twice"),
            (r#"{"numbers":null}"#, "`numbers` is null, which counts as missing"),
            (r#"{"numbers":[],"x":[1,.5]}"#, "`x` is .5, which is no value of JSON"),
        ] {
            let told = read(line).unwrap_err();
            assert_eq!(told.replace("a string", "\"2\""), message, "{line}");
        }
    }

    #[test]
    fn a_line_must_be_one_object_and_the_message_calls_it_a_turn() {
        for (line, message) in [
            ("[1]", "a turn must be a JSON object, not an array (column 1)"),
            (r#"{"a":1"#, "the turn is cut off before its last `}` (column 7): a turn must be whole"),
            (r#"{"a":1}{"a":2}"#, "another object follows the turn: each turn must have a line of its own"),
        ] {
            let told = read(line).unwrap_err();
            assert!(told.starts_with(message), "{told}");
        }
        let told = TurnObject::of(b"[]", true).unwrap_err().to_string();
        assert!(told.starts_with("an `application/json` body must be one turn, not an array"), "{told}");
        let object = TurnObject::of(br#"{"a":1,"b":null,"type":"x"}"#, false).unwrap();
        assert_eq!(object.has(["a", "b", "c", "type"]).unwrap(), [true, false, false, true]);
    }
}
