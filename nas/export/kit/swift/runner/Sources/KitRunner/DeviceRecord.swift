import Foundation

/// One line of the records file; keys are written in snake case, `device_record.schema.json` says what they hold.
struct DeviceRecord: Codable {
    var schema = "nas/device_record/1"
    var runId: String
    var time: String
    var host: Host
    var device: Phone
    var model: Model
    var config: Configuration
    var kit: String
    var job: String
    var scenario: String
    var state: String
    var origin = "measured"
    var latency: Latency?
    var load: Load?
    var memory: Memory?
    var plan: [PlanRow] = []
    var placement: Placement?
    var error: Failure?
}

struct Host: Codable {
    var tool = "KitRunner 1"
}

struct Phone: Codable {
    var product: String
    var chip: String
    var ramGb: Double
    var os: String
    var osBuild: String
    var lowPower: Bool
    var battery: Double?
    var thermalStart: String
    var thermalEnd: String?
}

struct Input: Codable {
    var name: String
    var shape: [Int]
    var dtype: String
}

struct Model: Codable {
    var kind: String
    var archId: String?
    var blockPath: String?
    var file: String
    var sha256: String
    var specVersion: Int?
    var toolchain: String?
    var inputs: [Input]
    var params: Int?
    var weightBits: Double?
    var activationDtype: String?
}

struct Configuration: Codable {
    var requestedUnits: String
    var lowering: String?
}

struct Latency: Codable {
    var unit = "ms"
    var samples: [Double]
    var warmup: Int
    var median: Double
    var p90: Double
    var min: Double
    var iqr: Double
    var coldFirst: Double
}

struct Load: Codable {
    var compileMs: Double
    var firstLoadMs: Double?
    var cachedLoadMs: Double?
}

struct Memory: Codable {
    var unit = "bytes"
    var method: String
    var footprintUnloaded: UInt64?
    var footprintBefore: UInt64?
    var footprintPeak: UInt64?
    var residentPeak: UInt64?
    var availableMin: UInt64?
    var sysFreeBefore: UInt64?
    var sysFreeMin: UInt64?
    var sysWiredBefore: UInt64?
    var sysWiredMax: UInt64?
}

struct PlanRow: Codable {
    var opType: String
    var preferred: String
    var outputName: String
    var supported: [String]
    var cost: Double?
}

struct Placement: Codable {
    var aneFractionOps: Double
    var aneFractionCost: Double
    var segments: Int
}

struct Failure: Codable {
    var stage: String
    var message: String
    var limitMb: Double?
}
