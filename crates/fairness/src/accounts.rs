//! Who uses how much of the processors, as a pure value that is told the time.
//!
//! Seats count requests, and on few cores there are many more seats than cores: what a flood takes
//! from others then is processor time. So each user's is counted, and whoever takes more than a
//! fair part is *heavy*. All users who are not take a quarter of the cores together at most
//! ([`LIGHT_PART`]), so that whoever serves them first hardly ever lets one of them wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Nanoseconds after which it is judged anew who is heavy.
pub const WINDOW: u64 = 20_000_000;
/// Of all cores, the part that users together may take without one of them being heavy.
pub const LIGHT_PART: f64 = 0.25;
/// Users who take less than this part of a core do not count when the fair part is found.
const ACTIVE_MIN: f64 = 0.005;
/// Of a user's rate, how much a window keeps of those before.
const SMOOTHING: f64 = 0.7;
/// A heavy user is light again below this part of what is fair, so that nobody is moved to and fro.
const LIGHT_AGAIN: f64 = 0.5;
/// Users with an account of their own; any more share one.
const ACCOUNTS_MAX: usize = 4096;

/// What one user takes.
#[derive(Debug, Default)]
pub struct Account {
    user: Box<str>,
    /// Nanoseconds in this window.
    spent: AtomicU64,
    heavy: AtomicBool,
}

impl Account {
    fn new(user: &str) -> Arc<Account> {
        Arc::new(Account {
            user: user.into(),
            ..Account::default()
        })
    }

    /// Whose it is.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether the user takes more than a fair part.
    pub fn is_heavy(&self) -> bool {
        self.heavy.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Row {
    account: Arc<Account>,
    /// Cores, smoothed.
    rate: f64,
}

#[derive(Debug, Default)]
struct Book {
    /// When the window began.
    since: u64,
    rows: HashMap<Box<str>, Row>,
}

/// The accounts of all users.
#[derive(Debug)]
pub struct Accounts {
    cores: f64,
    /// When the window ends.
    until: AtomicU64,
    book: Mutex<Book>,
}

impl Accounts {
    /// Nobody has used anything yet of so many cores.
    pub fn new(cores: usize) -> Accounts {
        Accounts {
            cores: cores as f64,
            until: AtomicU64::new(WINDOW),
            book: Mutex::default(),
        }
    }

    /// A user's account.
    pub fn of(&self, user: &str) -> Arc<Account> {
        let mut book = self.book.lock();
        let is_full = book.rows.len() >= ACCOUNTS_MAX && !book.rows.contains_key(user);
        let user = if is_full { "" } else { user };
        if let Some(row) = book.rows.get(user) {
            return Arc::clone(&row.account);
        }
        let account = Account::new(user);
        let row = Row {
            account: Arc::clone(&account),
            rate: 0.0,
        };
        book.rows.insert(user.into(), row);
        account
    }

    /// A user took so many nanoseconds of a core until `now`.
    pub fn charge(&self, account: &Account, now: u64, spent: u64) {
        account.spent.fetch_add(spent, Ordering::Relaxed);
        let until = self.until.load(Ordering::Relaxed);
        // Whoever is first behind a window's end judges it; the others need not wait.
        if now >= until {
            let next = self.until.compare_exchange(
                until,
                now + WINDOW,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if next.is_ok() {
                self.judge(now);
            }
        }
    }

    fn judge(&self, now: u64) {
        let mut book = self.book.lock();
        let length = now.saturating_sub(book.since).max(WINDOW) as f64;
        // A long silence is many windows.
        let kept = SMOOTHING.powf(length / WINDOW as f64);
        book.since = now;
        let mut active = 0_u32;
        book.rows.retain(|_, row| {
            let rate = row.account.spent.swap(0, Ordering::Relaxed) as f64 / length;
            row.rate = row.rate * kept + rate * (1.0 - kept);
            let is_active = row.rate >= ACTIVE_MIN;
            active += u32::from(is_active);
            is_active || Arc::strong_count(&row.account) > 1
        });
        let fair = self.cores * LIGHT_PART / f64::from(active.max(1));
        for row in book.rows.values() {
            let limit = match row.account.is_heavy() {
                true => fair * LIGHT_AGAIN,
                false => fair,
            };
            row.account.heavy.store(row.rate > limit, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets each user take its cores for so many windows.
    fn run(accounts: &Accounts, now: &mut u64, windows: u64, users: &[(&Arc<Account>, f64)]) {
        for _ in 0..windows {
            *now += WINDOW;
            for (account, cores) in users {
                accounts.charge(account, *now, (WINDOW as f64 * cores) as u64);
            }
        }
    }

    #[test]
    fn who_takes_more_than_a_fair_part_is_heavy_until_that_ends() {
        let (accounts, mut now) = (Accounts::new(2), 0);
        let (loud, quiet) = (accounts.of("loud"), accounts.of("quiet"));
        run(&accounts, &mut now, 20, &[(&loud, 1.5), (&quiet, 0.1)]);
        assert!(loud.is_heavy() && !quiet.is_heavy());
        // Less, but not little enough yet.
        run(&accounts, &mut now, 50, &[(&loud, 0.2), (&quiet, 0.1)]);
        assert!(loud.is_heavy());
        run(&accounts, &mut now, 50, &[(&loud, 0.05), (&quiet, 0.1)]);
        assert!(!loud.is_heavy() && !quiet.is_heavy());
    }

    #[test]
    fn the_fair_part_is_shared_by_those_who_are_active() {
        let (accounts, mut now) = (Accounts::new(2), 0);
        let one = accounts.of("one");
        run(&accounts, &mut now, 50, &[(&one, 0.4)]);
        assert!(!one.is_heavy(), "alone");
        let others: Vec<_> = (0..9)
            .map(|at| accounts.of(&format!("other-{at}")))
            .collect();
        let mut all: Vec<_> = others.iter().map(|other| (other, 0.04)).collect();
        all.push((&one, 0.4));
        run(&accounts, &mut now, 50, &all);
        assert!(one.is_heavy(), "one of ten");
        assert!(others.iter().all(|other| !other.is_heavy()));
    }

    #[test]
    fn a_pause_is_not_forgotten_and_nobody_is_kept_for_nothing() {
        let (accounts, mut now) = (Accounts::new(2), 0);
        let loud = accounts.of("loud");
        run(&accounts, &mut now, 20, &[(&loud, 2.0)]);
        assert!(loud.is_heavy());
        now += 100 * WINDOW;
        run(&accounts, &mut now, 1, &[(&loud, 0.01)]);
        assert!(!loud.is_heavy(), "long ago");
        assert_eq!(accounts.of("loud").user(), "loud");
        drop(loud);
        let other = accounts.of("other");
        now += 100 * WINDOW;
        run(&accounts, &mut now, 2, &[(&other, 0.1)]);
        assert_eq!(accounts.book.lock().rows.len(), 1);
    }

    #[test]
    fn more_users_than_there_is_room_for_share_an_account() {
        let accounts = Accounts::new(2);
        let held: Vec<_> = (0..ACCOUNTS_MAX)
            .map(|at| accounts.of(&format!("user-{at}")))
            .collect();
        let (one, other) = (accounts.of("one"), accounts.of("other"));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(Arc::ptr_eq(&held[7], &accounts.of("user-7")));
    }
}
