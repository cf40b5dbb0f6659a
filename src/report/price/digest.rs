use siphasher::sip::SipHasher13;

/// A checksum of bytes, the same on every machine and in every version.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    SipHasher13::new().hash(bytes)
}
