//! The service over a toy model.

use super::*;
use crate::chat::{Call, Chat, Message, Sampling, Task};
use crate::engine::Limits;
use crate::engine::toy::Toy;
use crate::tokenizer::testing;
use std::sync::Mutex;
use std::time::Duration;

const LIMITS: Limits = Limits { tokens_per_step: 512, sequences: 16 };

/// A service of `capacity` samples, and the toy's tokens of a text of its own.
pub fn toy(capacity: usize) -> (Handle, Worker<Toy>) {
    let (_, tokenizer, template) = testing::all().remove(0);
    let mut toy = Toy::new(4096);
    toy.vocab = tokenizer.vocab_size();
    service(Engine::new(toy, LIMITS), Arc::new(tokenizer), Arc::new(template), capacity)
}

pub fn generation(max_new_tokens: usize) -> Generation {
    Generation {
        prompt: vec![1, 2, 3],
        n: 1,
        max_new_tokens,
        params: SamplingParams::default(),
        seed: 1,
        stop: Arc::default(),
        ignore_stop_tokens: true,
        logprobs: None,
        prompt_logprobs: None,
        constraint: None,
        goes_on: true,
    }
}

fn call() -> Call {
    let task = Task::Generate(Sampling { max_new_tokens: 4, ..Sampling::default() });
    Call { messages: vec![Message::user("x")], prefix: String::new(), task }
}

/// Runs something that might never end; whether it does.
fn ends(work: impl FnOnce() + Send + 'static) -> bool {
    let (done, wait) = channel();
    std::thread::spawn(move || {
        work();
        done.send(())
    });
    wait.recv_timeout(Duration::from_secs(60)).is_ok()
}

#[test]
fn handing_in_never_waits_for_the_engine() {
    let (handle, _worker) = toy(1);
    assert!(ends(move || {
        let mut chats: Vec<ServiceChat> = (0..8).map(|_| handle.chat()).collect();
        for chat in &mut chats {
            (0..32).for_each(|id| chat.submit(id, call()));
        }
        handle.submit(vec![generation(4)]).unwrap();
    }));
}

#[test]
fn errands_take_turns_with_steps_and_are_left_out_if_nobody_waits() {
    let (handle, worker) = toy(4);
    let mut ticket = handle.submit(vec![generation(300)]).unwrap();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for k in 0..20 {
        let (seen, gauges) = (steps.clone(), handle.gauges.clone());
        let note = move || seen.lock().unwrap().push((k, gauges.steps.load(Ordering::Relaxed)));
        // Of every other one the receiver is gone before its turn.
        waiting.extend(Some(handle.send_errand(note)).filter(|_| k % 2 == 0));
    }
    let running = std::thread::spawn(move || worker.run());
    for errand in waiting {
        errand.blocking_recv().unwrap();
    }
    while ticket.updates.blocking_recv().is_some_and(|(_, u)| !matches!(u, Update::Done(_))) {}
    drop((handle, ticket));
    running.join().unwrap().unwrap();
    let steps = steps.lock().unwrap();
    let (numbers, steps): (Vec<u64>, Vec<u64>) = steps.iter().copied().unzip();
    assert!(numbers.iter().copied().eq((0..20).step_by(2)), "{numbers:?}");
    assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
}

#[test]
fn errands_beside_the_engine_do_not_wait_for_it() {
    let (handle, _worker) = toy(1);
    let handle = handle.with_errands_on(rayon::ThreadPoolBuilder::new().build().unwrap());
    assert!(ends(move || {
        assert_eq!(handle.errand_blocking(|| 7).unwrap(), 7);
        let broken = handle.errand_blocking(|| -> () { panic!("as asked") });
        assert!(matches!(broken, Err(ChatError::Broken(_))));
        assert_eq!(handle.errand_blocking(|| 8).unwrap(), 8);
    }));
}

#[test]
fn calls_end_with_the_engine_wherever_they_are() {
    let (handle, worker) = toy(1);
    let mut chat = handle.chat();
    chat.submit(7, call());
    drop(worker);
    chat.submit(8, call());
    let told: Vec<_> = std::iter::repeat_with(|| chat.wait()).take(2).flatten().collect();
    assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [7, 8]);
    assert!(told.iter().all(|(_, reply)| matches!(reply, Err(ChatError::Broken(_)))), "{told:?}");
}
