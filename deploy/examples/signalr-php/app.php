<?php
// A whole SignalR application on PHP's built-in server: methods that clients call are functions here. Hubcast calls this by HTTP.
//
//     HUBCAST_ENDPOINT=http://localhost:8080 HUBCAST_ACCESS_KEY=... PHP_CLI_SERVER_WORKERS=8 php -S 127.0.0.1:8000 app.php
//
// Each call occupies a worker. Behind nginx the same file is run by PHP-FPM.
declare(strict_types=1);

$keys = array_filter(explode(',', getenv('HUBCAST_ACCESS_KEY') ?: '')); // two while keys are rotated

/** An error whose text the client is told. */
class HubError extends Exception {}

// The methods: what they return is the result of the call.
$methods = [
    'Add' => fn (string $user, int|float $a, int|float $b) => $a + $b,
    'WhoAmI' => fn (string $user) => $user === '' ? 'nobody' : $user,
    'Say' => function (string $user, string $text): void {
        if ($text === '') {
            throw new HubError('a text is needed');
        }
        push('Said', $user, $text);
    },
];

/** Calls a method of all clients, by REST. */
function push(string $target, mixed ...$arguments): void
{
    $url = rtrim(getenv('HUBCAST_ENDPOINT') ?: '', '/') . '/api/hubs/chat/:send?api-version=2022-06-01';
    $part = fn (string $data) => rtrim(strtr(base64_encode($data), '+/', '-_'), '=');
    $claims = json_encode(['aud' => $url, 'exp' => time() + 300], JSON_THROW_ON_ERROR);
    $signed = $part('{"alg":"HS256"}') . '.' . $part($claims);
    $token = $signed . '.' . $part(hash_hmac('sha256', $signed, $GLOBALS['keys'][0] ?? '', true));
    $request = ['method' => 'POST', 'header' => ["Authorization: Bearer $token", 'Content-Type: application/json'],
        'content' => json_encode(['target' => $target, 'arguments' => $arguments], JSON_THROW_ON_ERROR), 'timeout' => 5];
    if (@file_get_contents($url, false, stream_context_create(['http' => $request])) === false) {
        throw new RuntimeException('the gateway does not take the message: ' . (error_get_last()['message'] ?? ''));
    }
}

function is_signed(string $connection, string $signatures): bool
{
    foreach ($GLOBALS['keys'] as $key) {
        foreach (explode(',', strtolower($signatures)) as $given) {
            if (hash_equals('sha256=' . hash_hmac('sha256', $connection, $key), $given)) {
                return true;
            }
        }
    }
    return false;
}

function invoke(string $user, stdClass $call): array
{
    $method = $GLOBALS['methods'][$call->target] ?? null;
    try {
        return $method ? ['result' => $method($user, ...$call->arguments)] : ['error' => "there is no method $call->target"];
    } catch (HubError $error) {
        return ['error' => $error->getMessage()];
    } catch (TypeError) { // too few of them, too
        return ['error' => "these are no arguments of $call->target"];
    }
}

$header = fn (string $name): string => $_SERVER['HTTP_X_ASRS_' . $name] ?? '';
if (!is_signed($header('CONNECTION_ID'), $header('SIGNATURE'))) {
    http_response_code(401);
} elseif ($header('CATEGORY') === 'connections') {
    error_log($header('USER_ID') . ' ' . $header('EVENT'));
} else {
    $call = json_decode(file_get_contents('php://input'), false, 512, JSON_THROW_ON_ERROR);
    $outcome = invoke($header('USER_ID'), $call);
    if (isset($call->invocationId)) { // else the client wants no answer
        header('Content-Type: application/json');
        echo json_encode(['type' => 3, 'invocationId' => $call->invocationId] + $outcome, JSON_THROW_ON_ERROR);
    }
}
