//! The kernel program in the kernel, and everything that user space does with it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::Ebpf;
use blixt_core::tables::{Op, Tables};
use blixt_packet::abi::{Flow, FlowKey, Settings};

use crate::Error;
use crate::apply::{self, Mirror};
use crate::attach::{self, Attachment, Directories, Refusals};
use crate::capacity::Capacity;
use crate::carry::carry;
use crate::census::Census;
use crate::cleanup;
use crate::counters::{self, Counters};
use crate::family::MapAddress;
use crate::flows::{self, FlowEntries};
use crate::hook::Hook;
use crate::instance::{self, Instance, Lock};
use crate::machine;
use crate::maps::Maps;
use crate::multicast::{self, Groups};
use crate::object::{self, KeptSize};
use crate::pins;
use crate::read_back;

/// How the kernel program is to be loaded.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Options {
    /// Sizes of maps that do not exist yet.
    pub capacity: Capacity,
    /// Constants of the program.
    pub settings: Settings,
    /// How long a next hop is believed after [`Dataplane::renew_hops`]; longer than the pauses between its calls.
    pub hop_life: Duration,
    /// Attach TC programs as filters of a clsact queueing discipline even where the kernel has TCX.
    pub filters: bool,
    /// Remove what instances of namespaces that are gone have left. Only who sees every process of the machine can tell: a
    /// container cannot.
    pub remove_dead: bool,
}

/// What [`Dataplane::open`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// There were pinned maps of this layout: their content was taken over.
    pub is_taken_over: bool,
    /// Maps that keep another size than the one that was asked for.
    pub kept_sizes: Vec<KeptSize>,
    /// Directories of other map layouts: their programs run until [`Dataplane::attach`] replaces them, and
    /// [`Dataplane::retire_other_layouts`] ends them.
    pub other_layouts: Vec<PathBuf>,
    /// Instances of network namespaces that are gone: their pins were removed.
    pub dead_instances: Vec<String>,
}

/// The kernel program of one network namespace. Dropping it leaves the program at work.
#[derive(Debug)]
pub struct Dataplane {
    ebpf: Ebpf,
    maps: Maps,
    /// `None` after a write that failed half-way: the maps must be read again.
    mirror: Option<Mirror>,
    capacity: Capacity,
    settings: Settings,
    hop_life: Duration,
    filters: bool,
    directories: Directories,
    groups: Groups,
    refusals: Refusals,
    found: Found,
    instance: Instance,
    /// Last: nobody else may begin while the rest is being dropped.
    lock: Lock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity: Capacity::of_machine(),
            settings: Settings::DEFAULT,
            hop_life: Duration::from_secs(10),
            filters: false,
            remove_dead: true,
        }
    }
}

impl Dataplane {
    /// Loads the program for the calling thread's network namespace. Pinned maps are taken over with what is in them;
    /// programs that are attached stay until [`Dataplane::attach`] replaces them.
    pub fn open(options: &Options) -> Result<Self, Error> {
        if !object::is_there() {
            return Err(Error::NoObject);
        }
        machine::check_bpf()?;
        let instance = Instance::current()?;
        let lock = instance.lock()?;
        let opened = Self::open_locked(options, instance.clone(), lock);
        if opened.is_err()
            && !instance.has_pins()
            && let Ok(lock) = instance.lock()
        {
            // Nothing was there, and nothing stays; why it failed is what matters.
            let _: Result<(), Error> = lock.remove();
        }
        opened
    }

    fn open_locked(options: &Options, instance: Instance, lock: Lock) -> Result<Self, Error> {
        let dead_instances = if options.remove_dead { cleanup::remove_dead(&instance) } else { Vec::new() };
        let directory = instance.directory()?;
        let own = directory.join(instance::layout());
        let is_new = !own.is_dir();
        fs::create_dir_all(&own).map_err(Error::file("create", &own))?;

        let loaded = Self::load(options, directory, own.clone(), dead_instances, instance, lock);
        if loaded.is_err() && is_new {
            // Nothing was there, and nothing stays.
            cleanup::remove_layout(&own)?;
        }
        loaded.map_err(machine::blame_kernel)
    }

    /// What was found when it was opened.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The instance that it is.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The sizes that the maps have.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// All programs, loaded, for running them on packets of a test or a benchmark: `blixt_ingress`, `blixt_egress`
    /// (TC) and `blixt_xdp`.
    pub fn programs(&mut self) -> Result<&mut Ebpf, Error> {
        for name in object::PROGRAMS {
            object::load_program(&mut self.ebpf, name)?;
        }
        Ok(&mut self.ebpf)
    }

    /// The programs that are in the kernel by now: `blixt_ingress`, and what the devices that were attached need.
    pub fn loaded_programs(&self) -> impl Iterator<Item = &'static str> {
        let is_loaded = |name: &&str| self.ebpf.program(name).is_some_and(object::is_loaded);
        object::PROGRAMS.into_iter().filter(is_loaded)
    }

    /// Writes operations to the maps, in order. After an error those before it are written.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), Error> {
        let deadline = self.deadline();
        let mut mirror = self.take_mirror()?;
        apply::apply(&self.maps, &mut mirror, ops, deadline)?;
        self.mirror = Some(mirror);
        Ok(())
    }

    /// What the maps hold, without what they do not keep: slots of rings, names of routes, addresses of next hops.
    pub fn read_back(&self) -> Result<Tables, Error> {
        read_back::read_back(&self.maps)
    }

    /// Lets every next hop that has a neighbour be believed for another [`Options::hop_life`].
    pub fn renew_hops(&mut self) -> Result<(), Error> {
        let deadline = self.deadline();
        let mut mirror = self.take_mirror()?;
        for row in mirror.hops.values_mut() {
            row.deadline = deadline;
        }
        let rows: Vec<_> = mirror.hops.iter().map(|(id, row)| (*id, *row)).collect();
        self.maps.hops.set(&rows)?;
        self.mirror = Some(mirror);
        Ok(())
    }

    /// Hooks a device, or replaces the programs on it without losing a packet. Without `egress` only packets that come
    /// in are seen.
    pub fn attach(&mut self, ifindex: u32, hook: Hook, egress: bool) -> Result<Attachment, Error> {
        let Self { ebpf, directories, refusals, filters, .. } = self;
        attach::attach(ebpf, directories, refusals, ifindex, hook, egress, *filters)
    }

    /// Takes the programs off a device; also removes what a device that is gone has left.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        self.refusals.retain(|(refused, _), _| *refused != ifindex);
        attach::detach(&self.directories, ifindex)
    }

    /// Lets devices hear who looks for an IPv6 address among these, each with the device that answers (0: none), and no
    /// longer who looks for others. What fails for one group does not keep the others back; the first failure is returned.
    pub fn join_groups(&mut self, addresses: &BTreeMap<IpAddr, u32>) -> Result<(), Error> {
        self.groups.follow(addresses)
    }

    /// What is attached, also by processes before this one; devices that are gone may still be listed.
    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        attach::attachments(&self.directories)
    }

    /// The directories of other map layouts whose programs may still be at work.
    pub fn other_layouts(&self) -> &[PathBuf] {
        &self.directories.other_layouts
    }

    /// Takes the connections of other map layouts over, as far as these maps have their backends, and answers how many entries are new
    /// here, two for each connection. To be called once the maps are filled, and again before other layouts are retired: their programs
    /// go on until each device has those of this one.
    pub fn carry_flows(&self) -> Result<usize, Error> {
        self.directories.other_layouts.iter().try_fold(0, |count, layout| {
            Ok(count + carry(layout, &self.maps.v4)? + carry(layout, &self.maps.v6)?)
        })
    }

    /// Ends the programs of other map layouts and removes their maps. Devices that were attached since run this
    /// version already. One that fails is tried again by the next call, and keeps the others not back; the first failure is
    /// returned.
    pub fn retire_other_layouts(&mut self) -> Result<(), Error> {
        let layouts = std::mem::take(&mut self.directories.other_layouts);
        cleanup::all(layouts.into_iter().map(|layout| {
            let retired = self.retire(&layout);
            if retired.is_err() {
                self.directories.other_layouts.push(layout);
            }
            retired
        }))
    }

    /// What the program counted.
    pub fn counters(&self) -> Result<Counters, Error> {
        match &self.mirror {
            Some(mirror) => counters::read(&self.maps, mirror),
            None => counters::read(&self.maps, &read_back::mirror(&self.maps, &self.read_back()?)?),
        }
    }

    /// About how many entries the flow tables hold, two for each connection.
    pub fn flow_entries(&self) -> Result<u64, Error> {
        flows::estimate(&self.maps)
    }

    /// Counts what the flow tables hold and what they gave up, on a thread of its owner's choice.
    pub fn census(&self) -> Result<Census, Error> {
        Census::new(&self.maps, self.settings)
    }

    /// The entry of one tuple: what would be done with a packet that carries it.
    pub fn flow<A: MapAddress>(&self, key: &FlowKey<A>) -> Result<Option<Flow<A>>, Error> {
        A::maps(&self.maps).flows.get(key)
    }

    /// Up to `limit` entries of a family, in no order.
    pub fn flows<A: MapAddress>(&self, limit: usize) -> Result<FlowEntries<A>, Error> {
        flows::list(A::maps(&self.maps), limit)
    }

    /// Takes every program off, removes every pin and the lock: as if Blixt had never been here.
    pub fn remove(self) -> Result<(), Error> {
        let Self { instance, lock, .. } = self;
        cleanup::remove_own(&instance, lock)
    }

    fn load(
        options: &Options,
        directory: PathBuf,
        own: PathBuf,
        dead_instances: Vec<String>,
        instance: Instance,
        lock: Lock,
    ) -> Result<Self, Error> {
        let settings = options.settings;
        let is_taken_over = !pins::list(&own)?.is_empty();
        let other_layouts: Vec<PathBuf> =
            pins::list(&directory)?.into_iter().filter(|path| *path != own && path.is_dir()).collect();
        let groups = Groups::open(&own)?;
        let loaded = object::load(&own, &options.capacity, &settings)?;
        let maps = Maps::new(&loaded.fds, machine::possible_cpus()?)?;
        let found = Found {
            is_taken_over,
            kept_sizes: loaded.kept,
            other_layouts: other_layouts.clone(),
            dead_instances,
        };
        let mut dataplane = Self {
            ebpf: loaded.ebpf,
            maps,
            // Maps that are new hold nothing.
            mirror: (!is_taken_over).then(Mirror::default),
            capacity: loaded.capacity,
            settings,
            hop_life: options.hop_life,
            filters: options.filters,
            directories: Directories { own, other_layouts },
            groups,
            refusals: Refusals::new(),
            found,
            instance,
            lock,
        };
        dataplane.mirror = Some(dataplane.take_mirror()?);
        Ok(dataplane)
    }

    fn retire(&self, layout: &Path) -> Result<(), Error> {
        // A group is joined once, whoever asked for it.
        let idle = multicast::marks(layout)?.into_iter().filter(|group| !self.groups.has_joined(*group));
        let left = cleanup::all(idle.map(|group| multicast::leave(layout, group)));
        // The maps stay as long as the mark of a group that could not be left.
        left.and_then(|()| cleanup::remove_layout(layout))
    }

    fn take_mirror(&mut self) -> Result<Mirror, Error> {
        match self.mirror.take() {
            Some(mirror) => Ok(mirror),
            None => read_back::mirror(&self.maps, &self.read_back()?),
        }
    }

    fn deadline(&self) -> u32 {
        u32::try_from((machine::now() + self.hop_life).as_secs()).unwrap_or(u32::MAX)
    }
}
