//! Frames that wait for a device: a fair share for each port that they came in by, and for each flow of it.
//!
//! Flow queueing with CoDel (RFC 8290), in two rounds: first ports take turns, then the flows of a port. A flow that
//! sends little is served before those that are always there. When there is no room, those that wait longest in the
//! longest queue of the port that takes most of it are dropped. Nothing is allocated after construction.

mod codel;
mod round;

use alloc::boxed::Box;
use core::ops::Range;

use smoltcp::time::Instant;

use codel::Codel;
use round::{Chain, Linked, NONE, Round, Share, Shares};

/// Whose frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The port that it came in by.
    pub input: u8,
    /// Frames of one connection have one number. It is ours, not chosen by who sends them.
    pub number: u32,
}

impl Flow {
    /// What the appliance itself says.
    pub const OWN: Self = Self { input: u8::MAX, number: 0 };
}

/// Queues of a link. Each port that frames come in by has as many as another, and so has the appliance.
const QUEUES: usize = 1024;
/// Ports that frames come in by, and the appliance, at most.
const CLASSES: usize = 34;
/// What a place is worth in octets: many short frames are as heavy as a few long ones.
const PLACE: u64 = 4096;
/// Frames that are dropped at once, at most, to make room.
const BATCH: usize = 32;

/// A frame that waits.
struct Waiting<T> {
    frame: T,
    octets: u32,
    since: Instant,
}

/// Room for one.
struct Place<T> {
    waiting: Option<Waiting<T>>,
    next: u16,
}

impl<T> Linked for Place<T> {
    fn next(&mut self) -> &mut u16 {
        &mut self.next
    }
}

struct Queue {
    frames: Chain,
    weight: u64,
    share: Share,
    codel: Codel,
}

impl Queue {
    const EMPTY: Self = Self { frames: Chain::EMPTY, weight: 0, share: Share::IDLE, codel: Codel::NEW };
}

impl Shares for Queue {
    fn share(&mut self) -> &mut Share {
        &mut self.share
    }
}

struct Class {
    flows: Round,
    weight: u64,
    share: Share,
}

impl Class {
    const EMPTY: Self = Self { flows: Round::EMPTY, weight: 0, share: Share::IDLE };
}

impl Shares for Class {
    fn share(&mut self) -> &mut Share {
        &mut self.share
    }
}

/// What waits for one device.
pub(crate) struct Fair<T> {
    places: Box<[Place<T>]>,
    free: Chain,
    length: usize,
    /// A flow's queue is one of `flows`, those of its class.
    queues: Box<[Queue]>,
    flows: usize,
    classes: Box<[Class]>,
    inputs: Round,
}

impl<T> Fair<T> {
    /// Octets that [`Fair::new`] allocates.
    pub(crate) const fn footprint(capacity: usize) -> usize {
        capacity * size_of::<Place<T>>() + QUEUES * size_of::<Queue>() + CLASSES * size_of::<Class>()
    }

    /// Room for `capacity` frames, less than 65 535, that come in by `inputs` ports: 0 stands for the most there are.
    pub(crate) fn new(capacity: u16, inputs: u8) -> Self {
        let mut places: Box<[_]> = (0..capacity).map(|_| Place { waiting: None, next: NONE }).collect();
        let mut free = Chain::EMPTY;
        (0..capacity).for_each(|place| free.push(&mut places, place));
        let classes = match usize::from(inputs) {
            inputs @ 1..CLASSES => inputs + 1,
            _ => CLASSES,
        };
        let flows = 1 << (QUEUES / classes).ilog2();
        Self {
            places,
            free,
            length: 0,
            queues: (0..classes * flows).map(|_| Queue::EMPTY).collect(),
            flows,
            classes: (0..classes).map(|_| Class::EMPTY).collect(),
            inputs: Round::EMPTY,
        }
    }

    /// Frames that wait.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Whether none does.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether there is no room for another.
    pub(crate) fn is_full(&self) -> bool {
        self.free.first().is_none()
    }

    /// Lets a frame wait; it comes back if there is no room.
    pub(crate) fn push(&mut self, frame: T, octets: u32, flow: Flow, now: Instant) -> Result<(), T> {
        let Some(place) = self.free.pop(&mut self.places) else { return Err(frame) };
        let input = usize::from(flow.input).min(self.classes.len() - 1);
        let number = self.of_input(input).start + mixed(flow.number) % self.flows;
        let (queue, class) = (&mut self.queues[number], &mut self.classes[input]);
        self.places[usize::from(place)].waiting = Some(Waiting { frame, octets, since: now });
        if queue.share.is_idle() {
            queue.codel = Codel::NEW;
        }
        queue.frames.push(&mut self.places, place);
        queue.weight += weight(octets);
        class.weight += weight(octets);
        self.length += 1;
        class.flows.join(&mut self.queues, number as u16);
        self.inputs.join(&mut self.classes, input as u16);
        Ok(())
    }

    /// The queues of a class.
    fn of_input(&self, input: usize) -> Range<usize> {
        input * self.flows..(input + 1) * self.flows
    }

    /// The frame whose turn it is, if it `fits`; those that have waited too long are handed to `late`.
    ///
    /// Ends: each round takes a frame, or somebody who has none out of a list.
    pub(crate) fn pop(
        &mut self,
        now: Instant,
        fits: impl Fn(&T) -> bool,
        mut late: impl FnMut(T),
    ) -> Option<T> {
        loop {
            let input = usize::from(self.inputs.turn(&mut self.classes)?);
            let flows = &mut self.classes[input].flows;
            let Some(number) = flows.turn(&mut self.queues) else {
                self.inputs.leave(&mut self.classes);
                continue;
            };
            let queue = &mut self.queues[usize::from(number)];
            let Some(first) = queue.frames.first() else {
                flows.leave(&mut self.queues);
                continue;
            };
            let Waiting { frame, since, .. } = self.places[usize::from(first)].waiting.as_ref()?;
            if !fits(frame) {
                return None;
            }
            let is_late = queue.codel.is_late(*since, queue.frames.is_single(), now);
            let Waiting { frame, octets, .. } = self.take(input, usize::from(number))?;
            if is_late {
                late(frame);
                continue;
            }
            self.queues[usize::from(number)].share.spend(octets);
            self.classes[input].share.spend(octets);
            return Some(frame);
        }
    }

    /// Hands half of the longest queue of the port that takes most room to `dropped`, the oldest first (RFC 8290 4.1).
    pub(crate) fn make_room(&mut self, mut dropped: impl FnMut(T)) {
        let heaviest = self.classes.iter().enumerate().max_by_key(|(_, class)| class.weight);
        let Some((input, _)) = heaviest else { return };
        let heaviest = self.of_input(input).max_by_key(|&number| self.queues[number].weight);
        let Some(number) = heaviest else { return };
        let half = self.queues[number].weight / 2;
        for _ in 0..BATCH {
            let Some(Waiting { frame, .. }) = self.take(input, number) else { return };
            dropped(frame);
            if self.queues[number].weight <= half {
                return;
            }
        }
    }

    /// Takes the first frame of a queue.
    fn take(&mut self, input: usize, number: usize) -> Option<Waiting<T>> {
        let queue = &mut self.queues[number];
        let place = queue.frames.pop(&mut self.places)?;
        let waiting = self.places[usize::from(place)].waiting.take()?;
        self.free.push(&mut self.places, place);
        queue.weight -= weight(waiting.octets);
        self.classes[input].weight -= weight(waiting.octets);
        self.length -= 1;
        Some(waiting)
    }

    /// Lets go of everything.
    pub(crate) fn clear(&mut self) {
        while !self.is_empty() {
            self.make_room(drop);
        }
    }
}

/// Spreads numbers that follow each other.
fn mixed(number: u32) -> usize {
    (number.wrapping_mul(0x9e37_79b1) >> 16) as usize
}

/// What a frame counts when there is no room.
fn weight(octets: u32) -> u64 {
    u64::from(octets) + PLACE
}

#[cfg(test)]
mod tests;
