//! What a host knows of its own leases: which it holds, and which of them nobody could tell.
//!
//! A lease's block may say more than its handle does, never less: an upgrade that was not answered may be in the block, but the
//! handle's lease is shared all the same. Where the two may differ, the lease is **loose**, until [`settle`](super::settle)
//! has written the block anew, as the books say. Since no image of a block comes twice, nothing that was sent before takes
//! effect then.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::block::{Holder, LeaseView, Mode};

/// A lease that this host holds, or is about to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    /// How its handle holds it; `None` while it is being acquired.
    mode: Option<Mode>,
    upgrade: Option<Upgrade>,
}

/// What tells an entry from all others, those of threads that try to get the same lease with the same token too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub lease: u64,
    pub token: u64,
    entry: u64,
}

impl Key {
    fn range(lease: u64, tokens: RangeInclusive<u64>) -> RangeInclusive<Self> {
        let (first, last) = tokens.into_inner();
        Self { lease, token: first, entry: 0 }..=Self { lease, token: last, entry: u64::MAX }
    }
}

/// An upgrade of a lease: the token that it is to have then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Upgrade {
    /// Whoever sent it waits for the answer, and goes by what is in the block.
    UnderWay(u64),
    /// No answer came: it may be in the block, or come to be. It does not count.
    Unanswered(u64),
}

/// What a host knows of its own leases.
#[derive(Default, Debug)]
pub(crate) struct Books {
    /// By lease and token: one host may share a lease several times.
    held: BTreeMap<Key, Entry>,
    /// How many entries were ever made.
    entries: u64,
    /// Leases whose blocks may say something else than `held`, with when they came loose last.
    loose: BTreeMap<u64, u64>,
    /// How often a lease came loose.
    loosened: u64,
    /// Whose turn it was last.
    last: u64,
}

impl Books {
    /// The host is about to have a lease. Before its block says so: it must not be taken for one that nobody knows of.
    pub(super) fn begin(&mut self, lease: u64, token: u64) -> Key {
        self.entries += 1;
        let key = Key { lease, token, entry: self.entries };
        self.held.insert(key, Entry { mode: None, upgrade: None });
        key
    }

    /// It has it.
    pub(super) fn hold(&mut self, key: Key, mode: Mode) {
        self.held.insert(key, Entry { mode: Some(mode), upgrade: None });
    }

    /// The host does not have it, or wants it no longer.
    pub(super) fn let_go(&mut self, key: Key) {
        self.held.remove(&key);
    }

    /// Its handle shares it from now on, whatever its block says yet.
    pub(super) fn downgrade(&mut self, key: Key) {
        if let Some(entry) = self.held.get_mut(&key) {
            entry.mode = Some(Mode::Shared);
        }
    }

    /// An upgrade of a lease, which then has this token, is about to be sent.
    pub(super) fn begin_upgrade(&mut self, key: Key, token: u64) {
        if let Some(entry) = self.held.get_mut(&key) {
            entry.upgrade = Some(Upgrade::UnderWay(token));
        }
    }

    /// It was done.
    pub(super) fn end_upgrade(&mut self, key: Key, token: u64) -> Key {
        self.let_go(key);
        let upgraded = Key { token, ..key };
        self.hold(upgraded, Mode::Exclusive);
        upgraded
    }

    /// It was not done, unless nobody can tell.
    pub(super) fn give_up_upgrade(&mut self, key: Key) {
        if let Some(entry) = self.held.get_mut(&key)
            && matches!(entry.upgrade, Some(Upgrade::UnderWay(_)))
        {
            entry.upgrade = None;
        }
    }

    /// What was sent for this lease was not answered.
    pub(super) fn loosen(&mut self, lease: u64) {
        self.loosened += 1;
        self.loose.insert(lease, self.loosened);
    }

    /// As [`loosen`](Self::loosen), where it was sent for this holder.
    pub(super) fn unanswered(&mut self, key: Key) {
        self.loosen(key.lease);
        if let Some(Entry { upgrade: Some(upgrade), .. }) = self.held.get_mut(&key)
            && let Upgrade::UnderWay(token) = *upgrade
        {
            *upgrade = Upgrade::Unanswered(token);
        }
    }

    /// When a lease came loose last, if it is loose.
    pub(super) fn loose_since(&self, lease: u64) -> Option<u64> {
        self.loose.get(&lease).copied()
    }

    /// The block says what the books did, and nothing that was sent up to `since` takes effect.
    pub(super) fn settled(&mut self, lease: u64, since: u64) {
        if self.loose_since(lease) != Some(since) {
            // Another request has not been answered meanwhile.
            return;
        }
        self.loose.remove(&lease);
        for (_, entry) in self.held.range_mut(Key::range(lease, 0..=u64::MAX)) {
            if matches!(entry.upgrade, Some(Upgrade::Unanswered(_))) {
                entry.upgrade = None;
            }
        }
    }

    /// Nobody can settle it: it is forgotten.
    pub(super) fn forget(&mut self, lease: u64) {
        self.loose.remove(&lease);
    }

    /// Whether a lease is loose.
    pub(crate) fn has_loose(&self) -> bool {
        !self.loose.is_empty()
    }

    /// The loose lease whose turn it is: they take turns, as some may not be settled for long.
    pub(super) fn next_loose(&mut self) -> Option<u64> {
        let after = self.last.checked_add(1).and_then(|next| self.loose.range(next..).next());
        let lease = *after.or_else(|| self.loose.first_key_value())?.0;
        self.last = lease;
        Some(lease)
    }

    /// A lease's block as it is to be, so that it agrees with the books. They must be looked at after the block was read: what
    /// is in it was in the books before.
    pub(super) fn agreed(&self, view: &LeaseView, is_us: impl Fn(&Holder) -> bool) -> LeaseView {
        let mut agreed = view.clone();
        agreed.holders =
            view.holders.iter().filter_map(|it| if is_us(it) { self.own(view.lease, it) } else { Some(*it) }).collect();
        let shares = |holder: &Holder| {
            let mut entries = self.held.range(Key::range(view.lease, holder.token..=holder.token));
            is_us(holder) && entries.any(|(_, entry)| entry.mode == Some(Mode::Shared))
        };
        if agreed.holders.is_empty() {
            agreed.mode = None;
        } else if agreed.holders.iter().any(shares) {
            agreed.mode = Some(Mode::Shared);
        }
        agreed
    }

    /// What becomes of one of the block's holders that is this host.
    fn own(&self, lease: u64, holder: &Holder) -> Option<Holder> {
        if self.held.range(Key::range(lease, holder.token..=holder.token)).next().is_some() {
            return Some(*holder);
        }
        self.held.range(Key::range(lease, 0..=u64::MAX)).find_map(|(Key { token, .. }, entry)| match entry.upgrade? {
            Upgrade::UnderWay(upgraded) if upgraded == holder.token => Some(*holder),
            // It is as if it had not been: the handle has its old token. The block keeps the greatest given so far.
            Upgrade::Unanswered(upgraded) if upgraded == holder.token => Some(Holder { token: *token, ..*holder }),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Holder = Holder { slot: 1, generation: 1, token: 4 };

    fn holder(token: u64) -> Holder {
        Holder { slot: 0, generation: 1, token }
    }

    fn view(mode: Mode, token: u64, holders: &[Holder]) -> LeaseView {
        LeaseView { mode: Some(mode), token, holders: holders.to_vec(), ..LeaseView::free(3) }
    }

    fn agreed(books: &Books, view: &LeaseView) -> (Option<Mode>, u64, Vec<u64>) {
        let agreed = books.agreed(view, |holder| holder.slot == 0);
        (agreed.mode, agreed.token, agreed.holders.iter().map(|holder| holder.token).collect())
    }

    fn held(books: &mut Books, token: u64, mode: Mode) -> Key {
        let key = books.begin(3, token);
        books.hold(key, mode);
        key
    }

    #[test]
    fn what_nobody_knows_of_is_given_up() {
        let mut books = Books::default();
        assert_eq!(agreed(&books, &view(Mode::Exclusive, 5, &[holder(5)])), (None, 5, vec![]));
        assert_eq!(agreed(&books, &view(Mode::Shared, 5, &[OTHER, holder(5)])), (Some(Mode::Shared), 5, vec![4]));
        let key = held(&mut books, 5, Mode::Exclusive);
        assert_eq!(agreed(&books, &view(Mode::Exclusive, 5, &[holder(5)])), (Some(Mode::Exclusive), 5, vec![5]));
        books.let_go(key);
        assert_eq!(agreed(&books, &view(Mode::Exclusive, 5, &[holder(5)])), (None, 5, vec![]));
    }

    #[test]
    fn of_two_threads_that_try_with_the_same_token_one_has_it() {
        let mut books = Books::default();
        let (one, other) = (books.begin(3, 5), books.begin(3, 5));
        books.hold(one, Mode::Exclusive);
        let block = view(Mode::Exclusive, 5, &[holder(5)]);
        assert_eq!(agreed(&books, &block), (Some(Mode::Exclusive), 5, vec![5]));
        books.let_go(other);
        assert_eq!(agreed(&books, &block), (Some(Mode::Exclusive), 5, vec![5]));
    }

    #[test]
    fn an_upgrade_counts_only_when_it_was_answered() {
        let mut books = Books::default();
        let key = held(&mut books, 5, Mode::Shared);
        let upgraded = view(Mode::Exclusive, 6, &[holder(6)]);
        books.begin_upgrade(key, 6);
        assert_eq!(agreed(&books, &upgraded), (Some(Mode::Exclusive), 6, vec![6]), "it is under way");
        books.unanswered(key);
        assert_eq!(agreed(&books, &upgraded), (Some(Mode::Shared), 6, vec![5]));
        let since = books.loose_since(3).unwrap();
        books.settled(3, since);
        assert!(!books.has_loose());
        assert_eq!(agreed(&books, &upgraded), (None, 6, vec![]), "it is not in the block any more, nor comes to be");
        books.begin_upgrade(key, 7);
        books.end_upgrade(key, 7);
        assert_eq!(agreed(&books, &view(Mode::Exclusive, 7, &[holder(7)])), (Some(Mode::Exclusive), 7, vec![7]));
    }

    #[test]
    fn who_downgrades_shares_it_at_once() {
        let mut books = Books::default();
        let key = held(&mut books, 5, Mode::Exclusive);
        books.downgrade(key);
        assert_eq!(agreed(&books, &view(Mode::Exclusive, 5, &[holder(5)])), (Some(Mode::Shared), 5, vec![5]));
    }

    #[test]
    fn what_came_loose_meanwhile_stays_loose() {
        let mut books = Books::default();
        books.loosen(3);
        let since = books.loose_since(3).unwrap();
        books.loosen(3);
        books.settled(3, since);
        assert!(books.has_loose());
    }

    #[test]
    fn loose_leases_take_turns() {
        let mut books = Books::default();
        for lease in [7, 0, u64::MAX] {
            books.loosen(lease);
        }
        let turns: Vec<_> = (0..4).map(|_| books.next_loose().unwrap()).collect();
        assert_eq!(turns, [7, u64::MAX, 0, 7]);
        books.forget(7);
        assert_eq!(books.next_loose(), Some(u64::MAX));
    }
}
