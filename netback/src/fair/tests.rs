use alloc::vec::Vec;

use smoltcp::time::Duration;

use super::*;

const START: Instant = Instant::from_micros_const(1_000_000);
const CAPACITY: u16 = 255;
const BULK: u32 = 1514;
const LARGE: u32 = 65_000;

/// A frame: its flow, and its place in it.
type Frame = (Flow, usize);

fn flow(input: u8, number: u32) -> Flow {
    Flow { input, number }
}

/// What leaves when there is always room, until nothing waits or so many have left.
fn leave(fair: &mut Fair<Frame>, count: usize) -> Vec<Frame> {
    let next = || fair.pop(START, |_| true, |_| panic!("nothing has waited"));
    core::iter::from_fn(next).take(count).collect()
}

/// Keeps flows of one port waiting while so many frames leave; how many of each did.
fn shares(flows: &[(Flow, u32)], count: usize) -> Vec<usize> {
    let mut fair = Fair::new(CAPACITY, 8);
    for &(flow, octets) in flows {
        (0..3).for_each(|number| fair.push((flow, number), octets, flow, START).unwrap());
    }
    let mut left = alloc::vec![0; flows.len()];
    for _ in 0..count {
        let (flow, number) = leave(&mut fair, 1)[0];
        let index = flows.iter().position(|(of, _)| *of == flow).unwrap();
        left[index] += 1;
        fair.push((flow, number), flows[index].1, flow, START).unwrap();
    }
    left
}

#[test]
fn rfc_8290_a_sparse_flow_overtakes_bulk_of_its_port_and_of_another() {
    for sparse in [flow(1, 77), flow(2, 77)] {
        let mut fair = Fair::new(CAPACITY, 8);
        for number in 0..254 {
            let bulk = flow(1, number as u32 % 4);
            fair.push((bulk, number), BULK, bulk, START).unwrap();
        }
        // The bulk has had its first turns.
        assert_eq!(leave(&mut fair, 40).len(), 40);
        fair.push((sparse, 0), 98, sparse, START).unwrap();
        let ahead = leave(&mut fair, 254).iter().position(|&(flow, _)| flow == sparse).unwrap();
        // What is left of the turn that its port's neighbour is in, at most.
        assert!(ahead <= 6, "{ahead} ahead of {sparse:?}");
    }
}

#[test]
fn rfc_8290_flows_share_evenly_by_octets_and_so_do_ports() {
    let even = shares(&[(flow(1, 1), BULK), (flow(1, 2), BULK)], 6000);
    assert!(even[0].abs_diff(even[1]) <= 12, "{even:?}");
    let large = shares(&[(flow(1, 1), BULK), (flow(1, 2), LARGE)], 6000);
    let octets = [large[0] as u64 * u64::from(BULK), large[1] as u64 * u64::from(LARGE)];
    assert!(octets[0].abs_diff(octets[1]) < octets[0] / 20, "{octets:?}");
    // One flow of a port has as much as twenty of another.
    let many: Vec<_> = (0..21).map(|number| (flow(1 + u8::from(number == 0), number), BULK)).collect();
    let ports = shares(&many, 6000);
    assert!(ports[0].abs_diff(3000) < 100, "{ports:?}");
    assert!(ports[1..].iter().all(|&share| share > 70), "{ports:?}");
}

#[test]
fn rfc_8290_a_flood_of_flows_is_bounded_and_starves_nobody() {
    let mut fair = Fair::new(CAPACITY, 8);
    let (bulk, other, mut sent) = (flow(1, 1), flow(2, 2), [0; 3]);
    for round in 0..20_000 {
        // Ten new flows of the first port for one frame that leaves, beside its own bulk and another port's.
        let flood = (0..10).map(|number| flow(1, 1000 + round * 10 + number));
        for flow in flood.chain([bulk, other]) {
            let mut frame = ((flow, 0), if flow.number < 1000 { BULK } else { 60 });
            if fair.is_full() {
                fair.make_room(|_| {});
            }
            frame.1 = fair.push(frame.0, frame.1, flow, START).map_or(0, |()| frame.1);
            assert_ne!(frame.1, 0, "there was room");
        }
        assert!(fair.len() <= usize::from(CAPACITY));
        let (flow, _) = leave(&mut fair, 1)[0];
        sent[if flow == bulk {
            0
        } else if flow == other {
            1
        } else {
            2
        }] += 1;
    }
    // By octets: half is the other port's, whose frames are large. The flood leaves a turn for the bulk beside it.
    assert!(sent[1] * BULK as usize > (sent[0] * BULK as usize + sent[2] * 60) * 9 / 10, "{sent:?}");
    assert!(sent[0] > 50, "{sent:?}");
}

#[test]
fn every_frame_leaves_once_in_the_order_of_its_flow_or_is_dropped() {
    let (mut chance, mut now) = (0x2545_f491_4f6c_dd1d_u64, START);
    let mut fair = Fair::new(CAPACITY, 8);
    // Of each flow: frames that came, and the last that left.
    let mut flows = alloc::vec![(0, None); 600];
    let (mut came, mut left, mut lost, mut late) = (0, 0, 0, 0);
    for _ in 0..300_000 {
        for shift in [13, -7_i32, 17] {
            chance ^= if shift > 0 { chance << shift } else { chance >> -shift };
        }
        let number = (chance >> 8) as usize % if chance & 8 == 0 { 4 } else { 600 };
        match chance % 8 {
            0..4 => {
                let octets = 60 + (chance >> 20) as u32 % LARGE;
                let flow = flow((number % 9) as u8, number as u32);
                if fair.is_full() {
                    fair.make_room(|_| lost += 1);
                }
                assert!(fair.push((flow, flows[number].0), octets, flow, now).is_ok());
                flows[number].0 += 1;
                came += 1;
            }
            4..7 => {
                let room = chance >> 40 & 3 != 0;
                if let Some((flow, place)) = fair.pop(now, |_| room, |_| late += 1) {
                    let last = &mut flows[flow.number as usize].1;
                    assert!(last.is_none_or(|last| last < place), "{flow:?}: {place} after {last:?}");
                    (*last, left) = (Some(place), left + 1);
                }
            }
            _ => now += Duration::from_micros(chance >> 20 & 0x7ff),
        }
        assert_eq!(fair.len(), came - left - lost - late);
        assert!(fair.len() <= usize::from(CAPACITY));
    }
    assert!(lost > 1000 && late > 1000 && left > 50_000, "{lost} lost, {late} late, {left} left");
    let rest = core::iter::from_fn(|| fair.pop(now, |_| true, |_| late += 1)).count();
    assert_eq!((came, fair.len()), (left + lost + late + rest, 0));
    assert!(
        fair.queues.iter().all(|queue| queue.weight == 0)
            && fair.classes.iter().all(|class| class.weight == 0)
    );
}
