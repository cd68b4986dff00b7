//! Latencies in shared memory: log-linear buckets, so that a killed process loses none that it recorded.

use hdrhistogram::Histogram;

/// Buckets per power of two, as a power of two: each is within 3 % of what it stands for.
const PRECISION_BITS: u32 = 5;

/// The longest latency told from longer ones: 2⁴² ns are 73 minutes.
const LONGEST_BITS: u32 = 42;

/// How many buckets there are.
pub const BUCKETS: usize = bucket((1 << LONGEST_BITS) - 1) + 1;

/// The bucket that counts latencies of `ns`.
pub const fn bucket(ns: u64) -> usize {
    let ns = if ns < 1 << LONGEST_BITS { ns } else { (1 << LONGEST_BITS) - 1 };
    if ns < 1 << PRECISION_BITS {
        return ns as usize;
    }
    let shift = ns.ilog2() - PRECISION_BITS;
    ((shift as usize) << PRECISION_BITS) + (ns >> shift) as usize
}

/// A latency in the middle of a bucket.
pub const fn middle_ns(bucket: usize) -> u64 {
    if bucket < 2 << PRECISION_BITS {
        return bucket as u64;
    }
    let shift = (bucket >> PRECISION_BITS) - 1;
    let lowest = ((bucket - (shift << PRECISION_BITS)) as u64) << shift;
    lowest + (1 << shift) / 2
}

/// The percentiles the torture prints.
#[derive(Clone, Copy, Default, Debug)]
pub struct Latency {
    /// Half of the attempts took no longer.
    pub p50_ns: u64,
    /// 99 in 100 took no longer.
    pub p99_ns: u64,
    /// 999 in 1,000 took no longer.
    pub p99_9_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Latency {
    /// From the buckets' counts, and the longest latency as it was measured.
    pub fn of(counts: impl Iterator<Item = u64>, max_ns: u64) -> Self {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 1 << LONGEST_BITS, 3).expect("valid bounds");
        for (bucket, count) in counts.enumerate() {
            histogram.record_n(middle_ns(bucket), count).expect("within the bounds");
        }
        // A bucket's middle may lie above the longest of all.
        let at = |quantile| histogram.value_at_quantile(quantile).min(max_ns);
        Self { p50_ns: at(0.5), p99_ns: at(0.99), p99_9_ns: at(0.999), max_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_without_gaps_and_close() {
        assert_eq!(bucket(0), 0);
        assert!((1..100_000).all(|ns| (0..=1).contains(&(bucket(ns) - bucket(ns - 1)))));
        for ns in (0..100_000).chain((0..LONGEST_BITS).map(|bits| (1 << bits) + 1)) {
            assert!(bucket(ns) < BUCKETS);
            let off = middle_ns(bucket(ns)).abs_diff(ns);
            assert!(off * 32 <= ns, "{ns} counts as {}", middle_ns(bucket(ns)));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut counts = vec![0; BUCKETS];
        counts[bucket(100)] = 985;
        counts[bucket(5_000)] = 14;
        counts[bucket(1_000_000)] = 1;
        let latency = Latency::of(counts.into_iter(), 1_000_000);
        for (found, meant) in [(latency.p50_ns, 100), (latency.p99_ns, 5_000), (latency.p99_9_ns, 5_000)] {
            assert!(found.abs_diff(meant) * 25 <= meant, "{found} for {meant}");
        }
        assert_eq!(latency.max_ns, 1_000_000);
    }
}
