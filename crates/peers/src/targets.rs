//! The project's targets, judged by a run's sections.

use crate::results::{Kind, Row, Section, Target};

/// A section's rows, if it was measured.
fn rows<'r>(sections: &'r [Section], id: &str) -> &'r [Row] {
    sections.iter().find(|section| section.id == id).map_or(&[], |section| &section.rows)
}

/// casblock's first measure in the rounds of `other`, divided by that one's.
fn ratio(sections: &[Section], id: &str, other: &str, at: Option<f64>) -> Option<f64> {
    let row = rows(sections, id).iter().find(|row| row.who.contains(other) && row.at == at)?;
    Some(row.ratio?.median)
}

/// One of casblock's own measures.
fn own(sections: &[Section], id: &str, measure: usize, at: f64) -> Option<f64> {
    let mut rows = rows(sections, id).iter();
    let row = rows.find(|row| row.kind == Kind::Casblock && row.at == Some(at))?;
    Some(row.figures.get(measure)?.as_ref()?.median)
}

/// The least of casblock's ratios to all others, at one place: where more is better, that to the best of them.
fn ratio_to_best(sections: &[Section], id: &str, at: f64) -> Option<f64> {
    let others = rows(sections, id).iter().filter(|row| row.kind == Kind::Peer && row.at == Some(at));
    others.filter_map(|row| Some(row.ratio?.median)).min_by(f64::total_cmp)
}

/// What should be at most `limit`.
fn at_most(text: &str, limit: f64, measured: Option<f64>) -> Option<Target> {
    let measured = measured?;
    Some(Target { text: text.to_owned(), measured, limit, less_is_better: true, met: measured <= limit })
}

/// What should be at least `limit`.
fn at_least(text: &str, limit: f64, measured: Option<f64>) -> Option<Target> {
    let measured = measured?;
    Some(Target { text: text.to_owned(), measured, limit, less_is_better: false, met: measured >= limit })
}

/// Those whose sections were measured.
pub fn judge(sections: &[Section]) -> Vec<Target> {
    const LIMIT: &str = "limit";
    let many = Some(32.0);
    let rate = |threads| own(sections, "contended-threads", 5, threads);
    let durable = |threads| own(sections, "durable", 0, threads);
    let targets = [
        at_most("read of one block ÷ memcpy", 1.3, ratio(sections, "read-hot", LIMIT, None)),
        at_most("exchange of a word ÷ bare exchange", 1.2, ratio(sections, "words", LIMIT, None)),
        at_most("compare-and-write, one block ÷ limit", 1.4, ratio(sections, "caw-hot", LIMIT, None)),
        at_most("compare-and-write, 1,024 blocks ÷ limit", 1.4, ratio(sections, "caw-1024", LIMIT, None)),
        at_least(
            "2 threads, 1,024 blocks ÷ parking_lot Mutex",
            1.0,
            ratio(sections, "caw-2-threads", "parking_lot Mutex", None),
        ),
        at_least("2 threads, 1,024 blocks ÷ robust mutex", 1.2, ratio(sections, "caw-2-threads", "robust", None)),
        at_most("p99.9 of 32 threads on one block, ns", 1000.0, own(sections, "contended-threads", 0, 32.0)),
        at_most(
            "the same ÷ parking_lot Mutex",
            1.0 / 300.0,
            ratio(sections, "contended-threads", "parking_lot Mutex", many),
        ),
        at_least("32 threads on one block ÷ 2 threads", 0.9, rate(32.0).zip(rate(2.0)).map(|(a, b)| a / b)),
        at_most(
            "read over 512 MiB ÷ parking_lot Mutex",
            1.15,
            ratio(sections, "read-random", "parking_lot Mutex", None),
        ),
        at_least("durable updates, 8 threads ÷ one", 4.0, durable(8.0).zip(durable(1.0)).map(|(a, b)| a / b)),
        at_least("hits of a cache, 2 threads ÷ fastest other", 1.5, ratio_to_best(sections, "cache-hits", 2.0)),
        at_least("hit ratio, cache of 0.1 % ÷ best other", 1.0, ratio_to_best(sections, "cache-hit-ratio", 0.1)),
        at_least("hit ratio, cache of 1 % ÷ best other", 1.0, ratio_to_best(sections, "cache-hit-ratio", 1.0)),
        at_least("hit ratio, cache of 10 % ÷ best other", 1.0, ratio_to_best(sections, "cache-hit-ratio", 10.0)),
        at_most("bytes beside the blocks of 2²⁶, %", 3.0, own(sections, "growth-blocks", 4, (1u64 << 26) as f64)),
    ];
    targets.into_iter().flatten().collect()
}
