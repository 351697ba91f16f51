import CoreML

/// Compiles, loads and calls one package, and fills a record with what was seen; a failure is a result too.
struct JobMeasurement {
    let job: Manifest.Job
    let measuring: Manifest.Measuring
    let package: URL
    let records: URL

    private let clock = ContinuousClock()

    init(job: Manifest.Job, measuring: Manifest.Measuring, package: URL, records: URL) {
        self.job = job
        self.measuring = measuring
        self.package = package
        self.records = records
    }

    func fill(_ record: inout DeviceRecord) async {
        let unloaded = MemoryReading.now()
        let (name, file) = (job.job, records)
        let sampler = MemorySampler(everyMs: measuring.sampleEveryMs) {
            LastReading(job: name, footprint: $0.footprint, available: $0.available).write(beside: file)
        }
        var stage = "compile"
        var compiled: URL?
        defer { if let compiled { try? FileManager.default.removeItem(at: compiled) } }
        do {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units
            let began = clock.now
            let program = try await MLModel.compileModel(at: package)
            compiled = program
            record.load = Load(compileMs: milliseconds(since: began))

            stage = "load"
            record.load?.firstLoadMs = try timedLoad(program, configuration).ms
            let (model, cachedMs) = try timedLoad(program, configuration)
            record.load?.cachedLoadMs = cachedMs
            record.plan = (try? await ComputePlan.rows(compiled: program, configuration: configuration)) ?? []
            record.placement = ComputePlan.placement(of: record.plan)

            stage = "predict"
            let inputs = try SeededInputs.make(job.model.inputs, seed: job.seed)
            sampler.beginCalls()
            let coldFirst = try timedCall(model, inputs)
            let samples = try timedCalls(model, inputs)
            record.memory = sampler.summary(unloaded: unloaded, everyMs: measuring.sampleEveryMs)
            record.latency = summary(samples, coldFirst: coldFirst)
        } catch {
            record.error = Failure(stage: stage, message: error.localizedDescription)
        }
    }

    private var units: MLComputeUnits {
        switch job.config.requestedUnits {
        case "cpuOnly": return .cpuOnly
        case "cpuAndGPU": return .cpuAndGPU
        case "cpuAndNeuralEngine": return .cpuAndNeuralEngine
        default: return .all
        }
    }

    private func timedLoad(_ compiled: URL, _ configuration: MLModelConfiguration) throws -> (model: MLModel, ms: Double) {
        let began = clock.now
        let model = try MLModel(contentsOf: compiled, configuration: configuration)
        return (model, milliseconds(since: began))
    }

    private func timedCall(_ model: MLModel, _ inputs: MLFeatureProvider) throws -> Double {
        try autoreleasepool {
            let began = clock.now
            _ = try model.prediction(from: inputs)
            return milliseconds(since: began)
        }
    }

    /// At least the least number of calls and the least time, at most the largest number; warm-up first.
    private func timedCalls(_ model: MLModel, _ inputs: MLFeatureProvider) throws -> [Double] {
        var samples: [Double] = []
        let began = clock.now
        while samples.count < measuring.warmup + measuring.maxRepeats {
            let enough = samples.count >= measuring.warmup + measuring.minRepeats
            if enough && milliseconds(since: began) >= 1000 * measuring.minSeconds { break }
            samples.append(try timedCall(model, inputs))
        }
        return samples
    }

    private func summary(_ samples: [Double], coldFirst: Double) -> Latency {
        let steady = samples.dropFirst(measuring.warmup).sorted()
        let quantile = { (share: Double) -> Double in
            let place = share * Double(steady.count - 1)
            let low = Int(place)
            let high = min(low + 1, steady.count - 1)
            return steady[low] + (place - Double(low)) * (steady[high] - steady[low])
        }
        return Latency(
            samples: samples,
            warmup: measuring.warmup,
            median: quantile(0.5),
            p90: quantile(0.9),
            min: steady[0],
            iqr: quantile(0.75) - quantile(0.25),
            coldFirst: coldFirst
        )
    }

    private func milliseconds(since start: ContinuousClock.Instant) -> Double {
        let parts = (clock.now - start).components
        return Double(parts.seconds) * 1e3 + Double(parts.attoseconds) * 1e-15
    }
}
