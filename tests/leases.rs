//! Leases whose requests are not answered: what their handles say, and their blocks.

#[path = "hosts/device.rs"]
mod device;

use std::sync::{Arc, Barrier};

use casblock::device::{BlockDevice as _, Link};
use casblock::environment::Virtual;
use casblock::lease::{Lease, LeaseError, LeaseView, Mode};
use device::{Disk, Hooked, Member, disk, join, lease_lba};

type Handle = Lease<Arc<Hooked<Disk>>, Arc<Virtual>>;

/// Two hosts, the first of which loses answers on request, and what the block of lease 3 says.
struct Two {
    one: Member<Arc<Hooked<Disk>>>,
    two: Member<Disk>,
}

impl Two {
    fn new() -> Self {
        let world = Arc::new(Virtual::new(1));
        let disk = disk(&world);
        let (one, two) = (Hooked::new(disk.another_host()), disk.another_host());
        Self { one: join(one, "one", &world), two: join(two, "two", &world) }
    }

    /// Does something, of which the write of lease 3 is done, and not answered.
    fn unanswered<T>(&self, act: impl FnOnce() -> Result<T, LeaseError>) {
        self.one.device().before_writing(lease_lba(3), |disk| disk.set_link(Link::AnswersLost));
        assert!(matches!(act(), Err(LeaseError::Device(_))));
        assert!(self.one.device().is_done());
        self.one.device().device.set_link(Link::Up);
        self.beat();
    }

    fn beat(&self) {
        self.one.beat().unwrap();
        self.two.beat().unwrap();
    }

    fn view(&self) -> LeaseView {
        self.two.lease(3).unwrap()
    }

    /// What the block of lease 3 says: how it is held, its greatest token, and the holders'.
    fn block(&self) -> (Option<Mode>, u64, Vec<u64>) {
        let view = self.view();
        (view.mode, view.token, view.holders.iter().map(|holder| holder.token).collect())
    }

    /// The first has lease 3 with this token, shared, and the second can share it, no more.
    fn is_shared(&self, handle: &Handle, token: u64) {
        assert_eq!((handle.mode(), handle.token(), handle.is_valid()), (Mode::Shared, token, true));
        assert!(matches!(self.two.try_acquire(3, Mode::Exclusive), Err(LeaseError::Held(_))));
        self.two.try_acquire(3, Mode::Shared).unwrap().release().unwrap();
    }
}

#[test]
fn an_upgrade_whose_answer_is_lost_leaves_the_lease_shared() {
    let hosts = Two::new();
    let mut lease = hosts.one.try_acquire(3, Mode::Shared).unwrap();
    hosts.unanswered(|| lease.try_upgrade());
    assert_eq!(hosts.block(), (Some(Mode::Exclusive), 2, vec![2]), "it was done");
    assert_eq!((lease.mode(), lease.token()), (Mode::Shared, 1), "which its holder does not know");
    assert!(hosts.two.try_acquire(3, Mode::Shared).is_err());
    hosts.one.tidy();
    assert_eq!(hosts.block(), (Some(Mode::Shared), 2, vec![1]));
    hosts.is_shared(&lease, 1);
    lease.try_upgrade().unwrap();
    assert_eq!((lease.mode(), lease.token()), (Mode::Exclusive, 4), "after that of the second");
    lease.release().unwrap();
    assert_eq!(hosts.block(), (None, 4, vec![]));
}

#[test]
fn an_upgrade_is_tried_again_after_one_that_was_not_answered() {
    let hosts = Two::new();
    let mut lease = hosts.one.try_acquire(3, Mode::Shared).unwrap();
    hosts.unanswered(|| lease.try_upgrade());
    lease.try_upgrade().unwrap();
    assert_eq!((lease.mode(), lease.token()), (Mode::Exclusive, 3));
    assert_eq!(hosts.block(), (Some(Mode::Exclusive), 3, vec![3]));
    hosts.one.tidy();
    assert_eq!(hosts.block(), (Some(Mode::Exclusive), 3, vec![3]));
}

#[test]
fn a_downgrade_whose_answer_is_lost_shares_the_lease() {
    let hosts = Two::new();
    let mut lease = hosts.one.try_acquire(3, Mode::Exclusive).unwrap();
    hosts.unanswered(|| lease.downgrade());
    hosts.is_shared(&lease, 1);
    // Nothing was done: it is as good.
    let mut lease = {
        drop(lease);
        hosts.one.try_acquire(3, Mode::Exclusive).unwrap()
    };
    hosts.one.device().device.set_link(Link::Down);
    assert!(lease.downgrade().is_err());
    hosts.one.device().device.set_link(Link::Up);
    hosts.beat();
    assert_eq!((lease.mode(), hosts.view().mode), (Mode::Shared, Some(Mode::Exclusive)));
    hosts.one.tidy();
    hosts.is_shared(&lease, lease.token());
}

#[test]
fn what_is_given_back_after_an_unanswered_upgrade_is_free() {
    let hosts = Two::new();
    let mut lease = hosts.one.try_acquire(3, Mode::Shared).unwrap();
    hosts.unanswered(|| lease.try_upgrade());
    lease.release().unwrap();
    assert_eq!(hosts.block(), (None, 2, vec![]));
}

#[test]
fn a_damaged_lease_keeps_no_other_from_being_settled() {
    let hosts = Two::new();
    let (damaged, lease) =
        (hosts.one.try_acquire(2, Mode::Exclusive).unwrap(), hosts.one.try_acquire(3, Mode::Exclusive));
    let lease = lease.unwrap();
    hosts.one.device().device.set_link(Link::Down);
    assert!(damaged.release().is_err() && lease.release().is_err());
    hosts.one.device().device.set_link(Link::Up);
    hosts.beat();
    hosts.one.device().write(lease_lba(2), &[7; 512]).unwrap();
    hosts.one.tidy();
    assert_eq!(hosts.block(), (None, 1, vec![]));
}

#[test]
fn threads_of_a_host_that_fight_for_a_lease_do_not_lose_it_for_each_other() {
    let hosts = Two::new();
    let one = &hosts.one;
    // While one of them writes, another gets the lease, with the token that the first has in mind.
    let mut lease = std::thread::scope(|scope| {
        let (reached, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let (its, its_go) = (Arc::clone(&reached), Arc::clone(&go));
        one.device().before_writing(lease_lba(3), move |_| {
            its.wait();
            its_go.wait();
        });
        scope.spawn(|| assert!(matches!(one.try_acquire(3, Mode::Exclusive), Err(LeaseError::Held(_)))));
        reached.wait();
        let lease = one.try_acquire(3, Mode::Exclusive).unwrap();
        go.wait();
        lease
    });
    assert_eq!((lease.mode(), lease.token()), (Mode::Exclusive, 1));
    // A request for it that is not answered makes the host look, and keep it.
    hosts.one.device().device.set_link(Link::Down);
    assert!(lease.downgrade().is_err());
    hosts.one.device().device.set_link(Link::Up);
    hosts.beat();
    hosts.one.tidy();
    assert_eq!(hosts.block(), (Some(Mode::Shared), 1, vec![1]));
}
