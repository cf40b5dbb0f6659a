//! Rows with checksums: the value of a row ends with a checksum of 8 bytes over the table's name, the key and the rest
//! of the value.
//!
//! redb verifies its pages only in an explicit check, and not when it reads them. The checksum shows each read that the
//! row has the bytes that were written under this key. The checksum is SipHash-1-3 under a key of zeros: it guards
//! against accidents, and must stay the same in copies of a store, which get new ids.
//!
//! Rows of the index have a shorter checksum, in their ordinals (see `indexed`), because they have only 24 bytes and
//! fill most of the pages that a checkpoint writes.

use std::cmp::Ordering;
use std::fmt;
use std::hash::Hasher;
use std::marker::PhantomData;

use redb::{Key, TypeName, Value};
use siphasher::sip::SipHasher13;

use super::record::damaged::{DamagedRecord, RecordFlaw};

/// A table whose rows have checksums.
pub(crate) trait Rows: fmt::Debug + 'static {
    type Key: CheckedKey;
    /// The table's name.
    const NAME: &'static str;
    /// The name of a row in messages.
    const WHAT: &'static str;
}

/// A key that can be fed to a checksum without copying the key.
pub(crate) trait CheckedKey: Key + 'static {
    fn feed(key: &Self::SelfType<'_>, hasher: &mut SipHasher13);

    /// Returns whether the bytes are a key of this type. The bytes of a damaged page may be anything, and decoding
    /// bytes that are no key may panic.
    fn is_valid(bytes: &[u8]) -> bool;
}

/// A key of the type `K` as it is in the file. Damage may have made its bytes no key at all, and decoding such bytes
/// may panic. redb sees the type `K`.
#[derive(Debug)]
pub(crate) struct RawKey<K>(PhantomData<fn() -> K>);

impl<K: CheckedKey> Value for RawKey<K> {
    type SelfType<'a> = &'a [u8];
    type AsBytes<'a> = &'a [u8];

    fn fixed_width() -> Option<usize> {
        K::fixed_width()
    }

    fn from_bytes<'a>(bytes: &'a [u8]) -> &'a [u8]
    where
        Self: 'a,
    {
        bytes
    }

    fn as_bytes<'a, 'b: 'a>(value: &'a &'b [u8]) -> &'a [u8]
    where
        Self: 'b,
    {
        value
    }

    fn type_name() -> TypeName {
        K::type_name()
    }
}

impl<K: CheckedKey> Key for RawKey<K> {
    fn compare(one: &[u8], other: &[u8]) -> Ordering {
        if K::is_valid(one) && K::is_valid(other) { K::compare(one, other) } else { one.cmp(other) }
    }
}

/// Returns whether the bytes are a key of a type whose keys all have the same length.
fn has_its_width<K: Key>(bytes: &[u8]) -> bool {
    K::fixed_width() == Some(bytes.len())
}

fn is_text(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok()
}

impl CheckedKey for u64 {
    fn feed(key: &u64, hasher: &mut SipHasher13) {
        hasher.write(&key.to_le_bytes());
    }

    fn is_valid(bytes: &[u8]) -> bool {
        has_its_width::<Self>(bytes)
    }
}

impl CheckedKey for &'static str {
    fn feed(key: &&str, hasher: &mut SipHasher13) {
        // The length shows where the key ends and the value begins.
        u64::feed(&(key.len() as u64), hasher);
        hasher.write(key.as_bytes());
    }

    fn is_valid(bytes: &[u8]) -> bool {
        is_text(bytes)
    }
}

impl CheckedKey for (u64, u64) {
    fn feed(key: &(u64, u64), hasher: &mut SipHasher13) {
        u64::feed(&key.0, hasher);
        u64::feed(&key.1, hasher);
    }

    fn is_valid(bytes: &[u8]) -> bool {
        has_its_width::<Self>(bytes)
    }
}

impl CheckedKey for (u64, &'static str) {
    fn feed(key: &(u64, &str), hasher: &mut SipHasher13) {
        u64::feed(&key.0, hasher);
        <&str>::feed(&key.1, hasher);
    }

    fn is_valid(bytes: &[u8]) -> bool {
        bytes.split_at_checked(size_of::<u64>()).is_some_and(|(_, text)| is_text(text))
    }
}

impl CheckedKey for (u64, &'static str, u32) {
    fn feed(key: &(u64, &str, u32), hasher: &mut SipHasher13) {
        <(u64, &str)>::feed(&(key.0, key.1), hasher);
        hasher.write(&key.2.to_le_bytes());
    }

    fn is_valid(bytes: &[u8]) -> bool {
        // redb writes the length of the text first: as one byte, or as 254 or 255 and a longer number.
        let (text_bytes, rest) = match bytes {
            [254, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
            [255, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
            [short @ ..=253, rest @ ..] => (usize::from(*short), rest),
            _ => return false,
        };
        let text = rest.get(size_of::<u64>()..rest.len().saturating_sub(size_of::<u32>()));
        text.is_some_and(|text| text.len() == text_bytes && is_text(text))
    }
}

impl CheckedKey for (u32, u64) {
    fn feed(key: &(u32, u64), hasher: &mut SipHasher13) {
        hasher.write(&key.0.to_le_bytes());
        u64::feed(&key.1, hasher);
    }

    fn is_valid(bytes: &[u8]) -> bool {
        has_its_width::<Self>(bytes)
    }
}

impl CheckedKey for (u8, i64, u64) {
    fn feed(key: &(u8, i64, u64), hasher: &mut SipHasher13) {
        hasher.write(&[key.0]);
        hasher.write(&key.1.to_le_bytes());
        u64::feed(&key.2, hasher);
    }

    fn is_valid(bytes: &[u8]) -> bool {
        has_its_width::<Self>(bytes)
    }
}

impl CheckedKey for (u32, u8, i64, u64) {
    fn feed(key: &(u32, u8, i64, u64), hasher: &mut SipHasher13) {
        hasher.write(&key.0.to_le_bytes());
        <(u8, i64, u64)>::feed(&(key.1, key.2, key.3), hasher);
    }

    fn is_valid(bytes: &[u8]) -> bool {
        has_its_width::<Self>(bytes)
    }
}

/// The key of a row of the table `T`.
pub(crate) type KeyOf<'a, T> = <<T as Rows>::Key as Value>::SelfType<'a>;

/// The value of a row of the table `T`. redb sees plain bytes.
#[derive(Debug)]
pub(crate) struct Row<T>(PhantomData<fn() -> T>);

/// A value as it is in the file. Its contents can be read only after a check of the checksum.
pub(crate) struct Stored<'a, T> {
    bytes: &'a [u8],
    table: PhantomData<fn() -> T>,
}

impl<T> Clone for Stored<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Stored<'_, T> {}

impl<T> fmt::Debug for Stored<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stored").field(&self.bytes).finish()
    }
}

impl<T: Rows> Value for Row<T> {
    type SelfType<'a> = Stored<'a, T>;
    type AsBytes<'a> = &'a [u8];

    fn fixed_width() -> Option<usize> {
        None
    }

    fn from_bytes<'a>(bytes: &'a [u8]) -> Stored<'a, T>
    where
        Self: 'a,
    {
        Stored::as_it_is(bytes)
    }

    fn as_bytes<'a, 'b: 'a>(value: &'a Stored<'b, T>) -> &'a [u8]
    where
        Self: 'b,
    {
        value.bytes
    }

    fn type_name() -> TypeName {
        <&[u8]>::type_name()
    }
}

impl<'a, T> Stored<'a, T> {
    /// Returns bytes as a stored value. They end with a right or a wrong checksum already.
    pub(crate) fn as_it_is(bytes: &'a [u8]) -> Self {
        Self { bytes, table: PhantomData }
    }

    /// Returns all bytes without a check, to move them aside or to measure them.
    pub(crate) fn unverified(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the stored checksum, right or wrong; 0 if the value is too short for a checksum.
    pub(crate) fn checksum(&self) -> u64 {
        self.bytes.last_chunk().map_or(0, |checksum| u64::from_le_bytes(*checksum))
    }
}

impl<'a, T: Rows> Stored<'a, T> {
    /// Returns the value without its checksum, if the checksum fits this key and value.
    pub(crate) fn verify(&self, key: &KeyOf<'_, T>) -> Result<&'a [u8], DamagedRecord> {
        match self.bytes.split_last_chunk() {
            Some((value, checksum)) if checksum_of::<T>(key, value) == u64::from_le_bytes(*checksum) => Ok(value),
            Some(_) => Err(DamagedRecord::new(T::WHAT, RecordFlaw::Checksum)),
            None => Err(DamagedRecord::new(T::WHAT, RecordFlaw::NoChecksum)),
        }
    }

    /// Like [`Self::verify`], under a key whose bytes may be no key.
    pub(crate) fn verify_raw(&self, key: &[u8]) -> Result<&'a [u8], DamagedRecord> {
        if !T::Key::is_valid(key) {
            return Err(DamagedRecord::new(T::WHAT, RecordFlaw::Key));
        }
        self.verify(&T::Key::from_bytes(key))
    }
}

/// Adds the checksum to a value that is about to be written under this key.
pub(crate) fn seal<'a, T: Rows>(key: &KeyOf<'_, T>, value: &'a mut Vec<u8>) -> Stored<'a, T> {
    let checksum = checksum_of::<T>(key, value);
    value.extend_from_slice(&checksum.to_le_bytes());
    Stored::as_it_is(value)
}

fn checksum_of<T: Rows>(key: &KeyOf<'_, T>, value: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(T::NAME.as_bytes());
    // No name has this byte, so it shows where the name ends and the key begins.
    hasher.write(&[0xff]);
    T::Key::feed(key, &mut hasher);
    hasher.write(value);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::tables::schema::{OpenTurnSteps, OpenTurns, Turns};

    #[test]
    fn a_checksum_is_the_same_for_ever() {
        assert_eq!(checksum_of::<Turns>(&(1, 2), b"a value"), 12_125_494_431_308_496_254);
        assert_eq!(checksum_of::<OpenTurns>(&(1, "a turn"), b"a value"), 7_942_274_717_297_087_920);
        assert_eq!(checksum_of::<OpenTurnSteps>(&(1, "a turn", 2), b"a value"), 2_082_063_838_531_657_544);
    }

    #[test]
    fn bytes_are_a_key_only_if_they_have_its_length_and_its_texts_are_texts() {
        fn check<K: CheckedKey>(key: &K::SelfType<'_>, text: Option<&str>) {
            let bytes = K::as_bytes(key).as_ref().to_vec();
            assert!(K::is_valid(&bytes), "{key:?}");
            let ends_with_text = text.is_some_and(|text| bytes.ends_with(text.as_bytes()));
            for cut in (0..bytes.len()).filter(|_| !ends_with_text) {
                assert!(!K::is_valid(&bytes[..cut]), "{key:?} cut at {cut}");
            }
            if let Some(text) = text {
                let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
                let mut other = bytes.clone();
                other[at] = 0xff;
                assert!(!K::is_valid(&other), "{other:?}");
            }
        }
        check::<u64>(&7, None);
        check::<(u64, u64)>(&(7, 8), None);
        check::<(u32, u64)>(&(7, 8), None);
        check::<(u8, i64, u64)>(&(7, -8, 9), None);
        check::<(u32, u8, i64, u64)>(&(6, 7, -8, 9), None);
        for text in ["a turn".to_owned(), "x".repeat(253), "x".repeat(254), "x".repeat(70_000)] {
            check::<&str>(&&*text, Some(&text));
            check::<(u64, &str)>(&(7, &*text), Some(&text));
            assert!(!<(u64, &str)>::is_valid(&[1; 7]));
        }
        for text in ["a turn".to_owned(), "x".repeat(254), "x".repeat(900)] {
            check::<(u64, &str, u32)>(&(7, &*text, 3), Some(&text));
        }
    }

    #[test]
    fn a_value_fits_only_under_its_key_in_its_table() {
        let mut row = b"value".to_vec();
        let bytes = seal::<OpenTurns>(&(1, "turn"), &mut row).unverified();
        let stored = Stored::<OpenTurns>::as_it_is(bytes);
        assert_eq!(stored.verify(&(1, "turn")).unwrap(), b"value");
        for key in [(2, "turn"), (1, "tur"), (1, "turnv"), (1, "turN")] {
            assert!(stored.verify(&key).is_err(), "{key:?}");
        }
        assert!(Stored::<Turns>::as_it_is(bytes).verify(&(1, 4)).is_err());
        for cut in 0..bytes.len() {
            assert!(Stored::<OpenTurns>::as_it_is(&bytes[..cut]).verify(&(1, "turn")).is_err(), "cut at {cut}");
        }
    }
}
