// swift-tools-version: 5.9
// An app package: Xcode opens this folder as it is. Choose your team and a phone there.
import AppleProductTypes
import PackageDescription

let package = Package(
    name: "MeasureApp",
    platforms: [.iOS("17.4")],
    products: [
        .iOSApplication(
            name: "MeasureApp",
            targets: ["AppModule"],
            bundleIdentifier: "org.mobile-video-nas.measure",
            displayVersion: "1.0",
            bundleVersion: "1",
            appIcon: .placeholder(icon: .clock),
            accentColor: .presetColor(.blue),
            supportedDeviceFamilies: [.phone, .pad],
            supportedInterfaceOrientations: [.portrait],
            additionalInfoPlistContentFilePath: "AppInfo.plist"
        )
    ],
    targets: [
        .target(name: "KitRunner", path: "Sources/KitRunner"),
        .executableTarget(name: "AppModule", dependencies: ["KitRunner"], path: "Sources/AppModule"),
    ]
)
