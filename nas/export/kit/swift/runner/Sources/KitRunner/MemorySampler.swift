import Darwin
import Foundation

#if os(iOS)
    import os
#endif

/// Bytes at one moment: the app's footprint, which decides when it is killed, and the whole system's free and wired
/// memory, the only place where buffers of the Neural Engine show.
struct MemoryReading {
    var footprint: UInt64 = 0
    var footprintLedgerPeak: UInt64 = 0
    var resident: UInt64 = 0
    var available: UInt64?
    var free: UInt64 = 0
    var wired: UInt64 = 0

    private static let host = mach_host_self()  // each call would hold one more right to the port

    static func now() -> MemoryReading {
        var reading = MemoryReading()
        var task = task_vm_info_data_t()
        var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<integer_t>.size)
        let found = withUnsafeMutablePointer(to: &task) {
            $0.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
            }
        }
        if found == KERN_SUCCESS {
            reading.footprint = task.phys_footprint
            reading.footprintLedgerPeak = UInt64(max(0, task.ledger_phys_footprint_peak))
            reading.resident = task.resident_size
        }
        var system = vm_statistics64_data_t()
        var length = mach_msg_type_number_t(MemoryLayout<vm_statistics64_data_t>.size / MemoryLayout<integer_t>.size)
        let counted = withUnsafeMutablePointer(to: &system) {
            $0.withMemoryRebound(to: integer_t.self, capacity: Int(length)) {
                host_statistics64(host, HOST_VM_INFO64, $0, &length)
            }
        }
        if counted == KERN_SUCCESS {
            let page = UInt64(getpagesize())
            reading.free = UInt64(system.free_count) * page
            reading.wired = UInt64(system.wire_count) * page
        }
        #if os(iOS)
            reading.available = UInt64(os_proc_available_memory())
        #endif
        return reading
    }
}

/// Reads the memory every few milliseconds on a queue of its own and keeps the extremes.
final class MemorySampler: @unchecked Sendable {
    private let queue = DispatchQueue(label: "memory-sampler", qos: .userInteractive)
    private let timer: DispatchSourceTimer
    private let noted: (MemoryReading) -> Void
    private var lastNoted: UInt64 = 0
    private var before = MemoryReading.now()
    private var peak: UInt64 = 0
    private var resident: UInt64 = 0
    private var available: UInt64?
    private var free = UInt64.max
    private var wired: UInt64 = 0

    /// `noted` gets a reading whenever the footprint is 16 MB above the last one that it got.
    init(everyMs: Int, noted: @escaping (MemoryReading) -> Void) {
        self.noted = noted
        timer = DispatchSource.makeTimerSource(queue: queue)
        timer.schedule(deadline: .now(), repeating: .milliseconds(everyMs), leeway: .milliseconds(1))
        timer.setEventHandler { [weak self] in self?.take(MemoryReading.now()) }
        timer.resume()
    }

    deinit { timer.cancel() }

    private func take(_ reading: MemoryReading) {
        peak = max(peak, reading.footprint)
        resident = max(resident, reading.resident)
        if let now = reading.available { available = min(available ?? now, now) }
        free = min(free, reading.free)
        wired = max(wired, reading.wired)
        if reading.footprint > lastNoted + 16_000_000 {
            lastNoted = reading.footprint
            noted(reading)
        }
    }

    /// Forget the peaks of loading: what follows are the calls.
    func beginCalls() {
        queue.sync {
            before = MemoryReading.now()
            peak = before.footprint
            resident = before.resident
        }
    }

    /// Peaks since `beginCalls`, and the system's extremes since the sampler was made.
    func summary(unloaded: MemoryReading, everyMs: Int) -> Memory {
        queue.sync {
            let last = MemoryReading.now()
            take(last)
            // The ledger's peak is the process's own and cannot be reset: it counts where these calls raised it.
            if last.footprintLedgerPeak > before.footprintLedgerPeak { peak = max(peak, last.footprintLedgerPeak) }
            return Memory(
                method: "phys_footprint every \(everyMs) ms",
                footprintUnloaded: unloaded.footprint,
                footprintBefore: before.footprint,
                footprintPeak: peak,
                residentPeak: resident,
                availableMin: available,
                sysFreeBefore: unloaded.free,
                sysFreeMin: free,
                sysWiredBefore: unloaded.wired,
                sysWiredMax: wired
            )
        }
    }
}
