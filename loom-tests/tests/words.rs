//! Heartbeat words against each other, and what they publish.
#![cfg(loom)]

use casblock::AtomicU64;
use casblock::Ordering::Relaxed;
use casblock::protocol::word::Word;
use loom::sync::Arc;
use loom::thread;
use loom_tests::{Tally, run_model, weakened};

type Exchange = fn(&Word, u64, u64) -> Result<(), u64>;

/// Two threads exchange a word that holds 0; one must win, and the other must find what it left.
fn two_exchange_one_word(name: &str, tally: &Tally, exchange: Exchange) {
    let tally = tally.clone();
    run_model(name, move || {
        let word = Arc::new(Word(AtomicU64::new(0)));
        let threads = [1, 2].map(|new| {
            let word = Arc::clone(&word);
            thread::spawn(move || exchange(&word, 0, new))
        });
        let [a, b] = threads.map(|thread| thread.join().expect("no panic"));
        match (a, b) {
            (Ok(()), Err(1)) => tally.count("first wins"),
            (Err(2), Ok(())) => tally.count("second wins"),
            both => panic!("not one winner: {both:?}"),
        }
    });
}

#[test]
fn one_of_two_exchanges_of_a_word_wins() {
    let tally = Tally::new();
    two_exchange_one_word("two exchange a word", &tally, Word::compare_exchange);
    tally.assert_reached(&["first wins", "second wins"]);
}

#[test]
#[should_panic(expected = "not one winner")]
fn control_both_of_two_stores_to_a_word_win() {
    two_exchange_one_word("control: a word without exchange", &Tally::new(), weakened::word_without_exchange);
}

/// One thread stores something and exchanges the word; another that sees the word exchanged must see it.
fn a_word_publishes(name: &str, tally: &Tally, see: fn(&Word) -> bool) {
    let tally = tally.clone();
    run_model(name, move || {
        let shared = Arc::new((Word(AtomicU64::new(0)), AtomicU64::new(0)));
        let publisher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1.store(7, Relaxed);
                shared.0.compare_exchange(0, 1).expect("nobody else exchanges 0");
            })
        };
        let reader = thread::spawn(move || {
            let seen = see(&shared.0);
            (seen, shared.1.load(Relaxed))
        });
        publisher.join().expect("no panic");
        match reader.join().expect("no panic") {
            (true, 7) => tally.count("seen"),
            (true, other) => panic!("the word was seen, but not what came before it: {other}"),
            (false, _) => tally.count("not seen"),
        }
    });
}

#[test]
fn who_loads_a_word_sees_what_came_before_its_exchange() {
    let tally = Tally::new();
    a_word_publishes("a word is loaded", &tally, |word| word.load() == 1);
    tally.assert_reached(&["not seen", "seen"]);
}

#[test]
fn who_exchanges_a_word_sees_what_came_before_its_last_exchange() {
    let tally = Tally::new();
    a_word_publishes("a word is exchanged", &tally, |word| word.compare_exchange(1, 2).is_ok());
    tally.assert_reached(&["not seen", "seen"]);
}

#[test]
fn who_fails_to_exchange_a_word_sees_what_came_before_the_exchange_it_found() {
    let tally = Tally::new();
    a_word_publishes("a word is found", &tally, |word| word.compare_exchange(9, 2) == Err(1));
    tally.assert_reached(&["not seen", "seen"]);
}

#[test]
#[should_panic(expected = "but not what came before it")]
fn control_who_loads_a_word_relaxed_does_not() {
    a_word_publishes("control: a word is loaded relaxed", &Tally::new(), |word| word.0.load(Relaxed) == 1);
}
