//! The access key ids whose logins have succeeded lately: bounded, and no account can take the room
//! of the others.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The maximum number of keys.
pub const MAX_KEYS: usize = 16_384;

/// How long a key is remembered after its last successful login.
pub const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// Keys and accounts as keyed hashes, which nobody outside the process can choose.
///
/// Anybody can have any number of keys of an account of their own, since each session of a role has
/// one. So when the maximum is reached, the account with the most keys loses its oldest one: each
/// account keeps a fair share.
#[derive(Debug, Default)]
pub struct KnownKeys {
    keys: HashMap<u64, Known>,
    /// The keys of each account by the time of their last login.
    accounts: HashMap<u64, BTreeSet<(Instant, u64)>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    account: u64,
    since: Instant,
}

impl Known {
    fn is_expired(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= KNOWN_FOR
    }
}

impl KnownKeys {
    /// Whether a login with this key has succeeded within [`KNOWN_FOR`].
    pub fn contains(&self, key: u64, now: Instant) -> bool {
        self.keys.get(&key).is_some_and(|known| !known.is_expired(now))
    }

    /// Remembers a key of this account, whose login has succeeded now.
    pub fn insert(&mut self, key: u64, account: u64, now: Instant) {
        self.remove(key);
        self.remove_expired(account, now);
        if self.keys.len() >= MAX_KEYS {
            self.remove_oldest_of_largest(account);
        }
        self.keys.insert(key, Known { account, since: now });
        self.accounts.entry(account).or_default().insert((now, key));
    }

    fn remove(&mut self, key: u64) {
        let Some(Known { account, since }) = self.keys.remove(&key) else { return };
        if let Some(keys) = self.accounts.get_mut(&account) {
            keys.remove(&(since, key));
            if keys.is_empty() {
                self.accounts.remove(&account);
            }
        }
    }

    fn oldest_of(&self, account: u64) -> Option<u64> {
        self.accounts.get(&account)?.first().map(|(_, key)| *key)
    }

    fn remove_expired(&mut self, account: u64, now: Instant) {
        while let Some(oldest) = self.oldest_of(account).filter(|oldest| !self.contains(*oldest, now)) {
            self.remove(oldest);
        }
    }

    /// Of accounts with the same number of keys, the one that needs the room loses one.
    fn remove_oldest_of_largest(&mut self, newest: u64) {
        let size = |account: &u64| self.accounts.get(account).map_or(0, BTreeSet::len);
        let largest = self.accounts.keys().copied().max_by_key(|account| (size(account), *account == newest));
        if let Some(oldest) = largest.and_then(|account| self.oldest_of(account)) {
            self.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VICTIM: u64 = 1;
    const STRANGER: u64 = 2;

    fn count(known: &KnownKeys, keys: std::ops::Range<u64>, now: Instant) -> usize {
        keys.filter(|key| known.contains(*key, now)).count()
    }

    #[test]
    fn a_flood_of_one_account_removes_no_key_of_another() {
        let (mut known, now) = (KnownKeys::default(), Instant::now());
        (0..1000).for_each(|key| known.insert(key, VICTIM, now));
        let flood = 1_000_000..1_125_000;
        flood.clone().for_each(|key| known.insert(key, STRANGER, now));
        assert_eq!(count(&known, 0..1000, now), 1000);
        assert_eq!(count(&known, flood, now), MAX_KEYS - 1000);
        // A key that comes after the flood is remembered, too.
        known.insert(1000, VICTIM, now);
        assert_eq!(count(&known, 0..1001, now), 1001);
        assert_eq!((known.keys.len(), known.accounts.len()), (MAX_KEYS, 2));
    }

    #[test]
    fn the_largest_account_loses_its_oldest_key() {
        let (mut known, begun) = (KnownKeys::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let full = MAX_KEYS as u64;
        (0..full).for_each(|key| known.insert(key, VICTIM, at(u64::from(key == 0))));
        known.insert(full, STRANGER, at(2));
        assert!(known.contains(0, at(2)) && !known.contains(1, at(2)) && known.contains(full, at(2)));
    }

    #[test]
    fn miri_a_key_is_known_for_an_hour_after_its_last_login() {
        let (mut known, begun) = (KnownKeys::default(), Instant::now());
        known.insert(1, VICTIM, begun);
        let late = begun + KNOWN_FOR - Duration::from_millis(1);
        assert!(known.contains(1, late) && !known.contains(2, late));
        known.insert(1, VICTIM, late);
        assert!(known.contains(1, late + KNOWN_FOR - Duration::from_millis(1)));
        assert!(!known.contains(1, late + KNOWN_FOR));
        // An expired key is removed at the account's next login.
        known.insert(2, VICTIM, late + KNOWN_FOR);
        assert_eq!((known.keys.len(), known.accounts[&VICTIM].len()), (1, 1));
        known.insert(2, STRANGER, late + KNOWN_FOR);
        assert_eq!((known.keys.len(), known.accounts.len()), (1, 1));
    }
}
