/// The number of bytes that are kept of each end of a long line, to find the turns that the line mentions.
const EDGE_BYTES: usize = 1024;

/// Appends the next piece of a line to its kept start and end. The bytes between them are dropped.
pub(crate) fn keep_edges(kept: &mut Vec<u8>, piece: &[u8]) {
    let last = &piece[piece.len().saturating_sub(EDGE_BYTES)..];
    let first = &piece[..EDGE_BYTES.saturating_sub(kept.len()).min(piece.len() - last.len())];
    kept.extend_from_slice(first);
    kept.extend_from_slice(last);
    // The middle is dropped only when much has gathered: moving bytes for every small piece would be slow.
    if kept.len() > 3 * EDGE_BYTES {
        kept.drain(EDGE_BYTES..kept.len() - EDGE_BYTES);
        kept.shrink_to(3 * EDGE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_and_the_end_of_a_line_are_kept_whatever_its_pieces() {
        let line: Vec<u8> = (0_u32..20_000).flat_map(u32::to_be_bytes).collect();
        for piece_bytes in [1, 100, 5000, line.len()] {
            let mut kept = Vec::new();
            for piece in line.chunks(piece_bytes) {
                keep_edges(&mut kept, piece);
                assert!(kept.len() <= 3 * EDGE_BYTES && kept.capacity() <= 5 * EDGE_BYTES, "{piece_bytes}");
            }
            assert!(kept.starts_with(&line[..EDGE_BYTES]), "{piece_bytes}");
            assert!(kept.ends_with(&line[line.len() - EDGE_BYTES..]), "{piece_bytes}");
        }
    }
}
