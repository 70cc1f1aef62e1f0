//! What people decide about a store: drain, remove, replace, label.

use proto::flotillapb::change_store_request::{Change as Wish, Drain, Label, Remove, Replace};
use proto::flotillapb::{ChangeStoreRequest, ChangeStoreResponse, StoreLife};
use proto::ids::StoreId;
use proto::limits::STORE_LABELS_MAX;
use proto::metapb;

use super::life::{Decision, decided};
use super::record::Record;
use super::stores::StoreInfo;
use super::{Change, Error, Scheduler};

/// Bytes of a label's name, and of its value.
const LABEL_BYTES_MAX: usize = 64;

fn refused<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Refused(reason.into()))
}

impl Scheduler {
    /// Drains, removes, replaces or labels a store.
    pub fn change_store(
        &mut self,
        request: ChangeStoreRequest,
        now_ms: u64,
    ) -> Result<(Change, ChangeStoreResponse), Error> {
        let now_ms = self.time.observe(now_ms);
        let id = StoreId::new(request.store_id);
        let store = self.stores.get(id).ok_or(Error::StoreUnknown(id))?.clone();
        if store.is_tombstone() {
            return Err(Error::StoreTombstone(id));
        }
        let records = match request.change {
            Some(Wish::Drain(wish)) => vec![self.drain(&store, wish, now_ms)?],
            Some(Wish::Remove(wish)) => vec![self.remove(&store, wish, now_ms)?],
            Some(Wish::Replace(wish)) => self.replace(&store, wish, now_ms)?,
            Some(Wish::Label(wish)) => vec![label(&store, wish)?],
            None => return Err(Error::invalid("change", "must be set")),
        };
        let mut change = Change::default();
        let after = StoreInfo { meta: records[0].clone(), ..store };
        for record in records {
            change.put(Record::Store(record));
        }
        let store = Some(self.store_view(&after, now_ms));
        Ok((change, ChangeStoreResponse { header: None, store }))
    }

    fn drain(&self, store: &StoreInfo, wish: Drain, now_ms: u64) -> Result<metapb::Store, Error> {
        let id = store.id();
        if wish.cancel {
            if !store.is_leaving() {
                return refused(format!("store {id} is not being drained"));
            }
            if store.is_lost() && store.silent_ms(now_ms) >= self.settings.store_disconnect_ms {
                return refused(format!("store {id} was given up and is not heard of"));
            }
            return Ok(decided(store.meta.clone(), Decision::Serve));
        }
        if store.is_lost() {
            return refused(format!("store {id} was given up: its peers are being replaced"));
        }
        let serves = |other: &&StoreInfo| {
            other.id() != id
                && matches!(
                    other.life(&self.settings, now_ms),
                    StoreLife::Up | StoreLife::Disconnected
                )
        };
        if self.stores.iter().find(serves).is_none() {
            return refused(format!("no store is left that could take the peers of store {id}"));
        }
        Ok(decided(store.meta.clone(), Decision::Drain))
    }

    fn remove(&self, store: &StoreInfo, wish: Remove, now_ms: u64) -> Result<metapb::Store, Error> {
        let id = store.id();
        let Some(reason) = self.has_peers(id) else {
            return Ok(decided(store.meta.clone(), Decision::Bury));
        };
        if !wish.lost {
            return refused(format!(
                "{reason}: drain it first; if it will never return, remove it as lost"
            ));
        }
        self.must_be_silent(store, now_ms)?;
        Ok(decided(store.meta.clone(), Decision::GiveUp))
    }

    /// Its address is free from here on; who registers with it inherits its labels.
    fn replace(
        &self,
        store: &StoreInfo,
        wish: Replace,
        now_ms: u64,
    ) -> Result<Vec<metapb::Store>, Error> {
        self.must_be_silent(store, now_ms)?;
        let mut records = vec![decided(store.meta.clone(), Decision::GiveUp)];
        if wish.new_store_id == 0 {
            return Ok(records);
        }
        let id = StoreId::new(wish.new_store_id);
        if id == store.id() {
            return refused(format!("store {id} cannot take its own place"));
        }
        let newcomer = self.stores.get(id).ok_or(Error::StoreUnknown(id))?;
        let life = newcomer.life(&self.settings, now_ms);
        if life != StoreLife::Up {
            let life = super::placement::life_name(life);
            return refused(format!("store {id} is {life}: it cannot take a place"));
        }
        let mut meta = newcomer.meta.clone();
        for label in &store.meta.labels {
            if !meta.labels.iter().any(|known| known.key == label.key) {
                meta.labels.push(label.clone());
            }
        }
        records.push(meta);
        Ok(records)
    }

    fn must_be_silent(&self, store: &StoreInfo, now_ms: u64) -> Result<(), Error> {
        let (id, silent_ms) = (store.id(), store.silent_ms(now_ms));
        let wanted_ms = self.settings.store_disconnect_ms;
        if silent_ms < wanted_ms {
            return refused(format!(
                "store {id} was heard of {silent_ms} ms ago, so it is not lost: drain it, or stop it and \
                 wait {wanted_ms} ms"
            ));
        }
        Ok(())
    }
}

fn label(store: &StoreInfo, wish: Label) -> Result<metapb::Store, Error> {
    let mut meta = store.meta.clone();
    for name in &wish.remove {
        let before = meta.labels.len();
        meta.labels.retain(|label| label.key != *name);
        if meta.labels.len() == before {
            return refused(format!("store {} has no label {name:?}", meta.id));
        }
    }
    for label in wish.labels {
        let sound = |text: &str| !text.is_empty() && text.len() <= LABEL_BYTES_MAX;
        if !sound(&label.key) || !sound(&label.value) || label.key.contains(',') {
            let reason = format!(
                "{:?} = {:?}: name and value have 1 to {LABEL_BYTES_MAX} bytes, the name no comma",
                label.key, label.value
            );
            return Err(Error::invalid("labels", reason));
        }
        match meta.labels.iter_mut().find(|known| known.key == label.key) {
            Some(known) => known.value = label.value,
            None => meta.labels.push(label),
        }
    }
    if meta.labels.len() > STORE_LABELS_MAX {
        let reason = format!("{} labels, more than {STORE_LABELS_MAX}", meta.labels.len());
        return Err(Error::invalid("labels", reason));
    }
    Ok(meta)
}
