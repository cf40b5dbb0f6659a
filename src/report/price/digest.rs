use siphasher::sip::SipHasher13;

/// Returns a checksum of bytes. It is the same on every machine and in every version.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    SipHasher13::new().hash(bytes)
}
