import Foundation

/// `manifest.json` of a kit, schema `nas/kit/1`: what to measure, in this order, and how.
struct Manifest: Decodable {
    let schema: String
    let kit: String
    let measuring: Measuring
    let jobs: [Job]

    struct Measuring: Decodable {
        let warmup: Int
        let minRepeats: Int
        let maxRepeats: Int
        let minSeconds: Double
        let restSeconds: Double
        let firstRestSeconds: Double
        let maxRestSeconds: Double
        let sampleEveryMs: Int
    }

    struct Job: Decodable {
        let job: String
        let package: String
        let scenario: String
        let seed: UInt64
        let model: Model
        let config: Configuration
    }

    init(contentsOf url: URL) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(Manifest.self, from: Data(contentsOf: url))
        guard schema == "nas/kit/1" else { throw KitError.unknownSchema(schema) }
    }
}

enum KitError: LocalizedError {
    case unknownSchema(String)
    case changedPackage(String)
    case otherKit(String)

    var errorDescription: String? {
        switch self {
        case .unknownSchema(let found): return "manifest.json is of schema \(found), this runner reads nas/kit/1"
        case .changedPackage(let name): return "\(name) is not what manifest.json says: copy the kit again"
        case .otherKit(let found): return "the records file is of kit \(found): give another file"
        }
    }
}
