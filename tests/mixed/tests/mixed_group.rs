//! Our nodes and raft-rs's in one group: agreement under faults, in every mixture, with each side leading and each side
//! catching up from the other's snapshots.

use std::collections::BTreeSet;

use flotilla_mixed::Change;
use flotilla_mixed::group::{Faults, Group};

const ROUGH: Faults =
    Faults { loss: 50, duplication: 50, delay_rounds: 4, restarts: 4, partitions: 8 };

/// Runs `rounds` with faults and a steady stream of commands; returns how many were taken.
fn work(group: &mut Group, rounds: u64, tag: &str) -> u32 {
    let mut taken = 0;
    for round in 0..rounds {
        for i in 0..group.random(4) {
            taken += u32::from(group.propose(format!("{tag} {round} {i}").as_bytes()));
        }
        if group.random(200) == 0
            && let Some(leader) = group.leader()
        {
            let to = 1 + group.random(3);
            group.member(leader).transfer_leader(to);
        }
        if group.random(60) == 0 {
            let id = 1 + group.random(3);
            group.member(id).compact();
        }
        group.step();
    }
    taken
}

#[test]
fn every_mixture_of_three_agrees_under_faults() {
    let mut led = BTreeSet::new();
    for kinds in ["oot", "oto", "too", "ott", "tot", "tto"] {
        for seed in 0..12 {
            let mut group = Group::new(kinds, seed);
            group.set_faults(ROUGH);
            let taken = work(&mut group, 1_500, "x");
            assert!(taken > 200, "{kinds} seed {seed}: only {taken} commands were taken");
            group.converge(&[1, 2, 3]);
            led.extend(group.led().iter().copied());
        }
    }
    assert_eq!(led.into_iter().collect::<Vec<_>>(), ["flotilla", "raft-rs"], "both have led");
}

#[test]
fn five_members_agree_under_heavy_loss() {
    for seed in 0..12 {
        let mut group = Group::new("ototo", seed);
        group.set_faults(Faults { loss: 200, delay_rounds: 8, ..ROUGH });
        let taken = work(&mut group, 1_500, "x");
        assert!(taken > 50, "seed {seed}: only {taken} commands were taken");
        group.converge(&[1, 2, 3, 4, 5]);
    }
}

#[test]
fn each_side_catches_up_from_the_others_snapshot() {
    for (kinds, behind) in [("oot", 3), ("tto", 3)] {
        let mut group = Group::new(kinds, 7);
        group.run(100);
        while group.leader() == Some(behind) || group.leader().is_none() {
            let leader = group.leader();
            if let Some(leader) = leader {
                group.member(leader).transfer_leader(1);
            }
            group.run(30);
        }
        // Cut the member off by not letting anything through, and move on without it.
        group.cut(&[behind]);
        for i in 0..100_u32 {
            assert!(group.propose(&i.to_be_bytes()), "the other two go on");
            group.run(2);
        }
        group.run(20);
        for id in [1, 2] {
            group.member(id).compact();
        }
        let before = group.member(behind).snapshots_installed();
        group.converge(&[1, 2, 3]);
        assert!(group.member(behind).snapshots_installed() > before, "{kinds}: by snapshot");
    }
}

#[test]
fn membership_changes_simple_and_joint() {
    for seed in 0..10 {
        let mut group = Group::new("oto", seed);
        group.set_faults(Faults { restarts: 2, partitions: 0, ..ROUGH });
        work(&mut group, 200, "a");
        group.add(4, 't', &[]);
        group.add(5, 'o', &[]);
        group.change(&[Change::AddLearner(4)]);
        work(&mut group, 200, "b");
        // Joint: promote the learner, add a voter, remove one of the founders.
        group.change(&[Change::AddVoter(4), Change::AddVoter(5), Change::Remove(2)]);
        work(&mut group, 300, "c");
        group.change(&[Change::Remove(1)]);
        work(&mut group, 300, "d");
        group.converge(&[3, 4, 5]);
        group.add(6, 't', &[]);
        group.change(&[Change::AddVoter(6), Change::Remove(3)]);
        work(&mut group, 200, "e");
        group.converge(&[4, 5, 6]);
    }
}
