use super::damages;
use super::world::World;
use crate::simulate::random::Random;

/// The number of flips in a run of the test. `TURN_METRICS_TEST_DAMAGES` sets another number.
const FLIPS: u64 = 24;

#[tokio::test]
async fn a_flipped_bit_that_a_check_finds_is_repaired_and_costs_nothing() {
    let (closed, killed) = (World::closed().await, World::killed().await);
    let mut random = Random::new(1);
    let (mut found, mut lost) = ([0; 3], 0);
    for flip in 0..damages(FLIPS) {
        let kind = usize::try_from(flip % 3).unwrap();
        let world = if kind == 0 { closed } else { killed };
        let (mut main, mut journal) = (world.main.clone(), world.journal.clone());
        let image = if kind == 2 { journal.as_mut().unwrap() } else { &mut main };
        let (at, bit) = (random.below(image.len()), random.below(8));
        image[at] ^= 1 << bit;
        let directory = World::place(&main, journal.as_deref());
        let damage = format!("bit {bit} of byte {at} of file {kind}");
        let repaired = world.repair(directory.path(), &damage).await;
        found[kind] += u64::from(!repaired.was_clean);
        lost += repaired.lost_sealed + repaired.lost_open;
        if !repaired.losses.is_empty() {
            println!("{damage}: {:?}", repaired.losses);
        }
    }
    println!(
        "{} flips; found in the main file {}, beside a journal {}, in the journal {}; {lost} turns were lost",
        damages(FLIPS),
        found[0],
        found[1],
        found[2]
    );
    assert!(found.iter().sum::<u64>() > 2, "{found:?}");
    assert_eq!(lost, 0);
}
