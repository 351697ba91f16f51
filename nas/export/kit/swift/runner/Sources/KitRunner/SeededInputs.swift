import CoreML

/// The inputs of a job: the same numbers at every call, on every device.
enum SeededInputs {
    static func make(_ inputs: [Input], seed: UInt64) throws -> MLFeatureProvider {
        var generator = SplitMix64(state: seed)
        var values: [String: MLMultiArray] = [:]
        for input in inputs {
            let half = input.dtype == "float16"
            let shape = input.shape.map { NSNumber(value: $0) }
            let array = try MLMultiArray(shape: shape, dataType: half ? .float16 : .int32)
            array.withUnsafeMutableBytes { bytes, _ in
                if half {
                    let words = bytes.bindMemory(to: UInt16.self)
                    for index in words.indices { words[index] = halfBits(generator.next()) }
                } else {
                    let words = bytes.bindMemory(to: Int32.self)
                    for index in words.indices { words[index] = Int32(generator.next() % 100) }
                }
            }
            values[input.name] = array
        }
        return try MLDictionaryFeatureProvider(dictionary: values)
    }

    /// A half float of either sign between 1/16 and 1, bit by bit, since Intel Macs have no `Float16`.
    private static func halfBits(_ random: UInt64) -> UInt16 {
        let sign = UInt16(truncatingIfNeeded: random >> 63) << 15
        let exponent = (11 + UInt16(truncatingIfNeeded: random >> 32) % 4) << 10
        return sign | exponent | (UInt16(truncatingIfNeeded: random) & 0x3FF)
    }
}

struct SplitMix64 {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}
