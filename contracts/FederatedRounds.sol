// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

/// @title  FederatedRounds
/// @notice What the peers of one federated task agree on: who takes part, the feature map, and for every round the
///         models (by content identifier), the grades that peers gave each other, and the reputation that follows.
/// @dev    There is no owner and no aggregator. Nodes are numbered by their place in the allow-list. Rounds count from
///         1 and open in order. Every state change emits an event: the log alone tells the whole task.
contract FederatedRounds {
    /*//////////////////////////////////////////////////////////////
                                 EVENTS
    //////////////////////////////////////////////////////////////*/

    event TaskOpened(bytes32 indexed configDigest, uint32 maxRounds, address[] nodes, string experiment, string source);
    event NodeRegistered(uint256 indexed node, address indexed account, bytes32 exchangeKey);
    event MapProposed(uint256 indexed node, bytes32 digest);
    event MapAgreed(bytes32 digest);
    event ModelSubmitted(uint32 indexed round, uint256 indexed node, bytes32 digest, uint8 codec, uint192 metrics);
    event GradesGiven(uint32 indexed round, uint256 indexed node, bytes grades);
    event RoundSettled(uint32 indexed round, uint8[] scores, uint16[] reputation);

    /*//////////////////////////////////////////////////////////////
                                 ERRORS
    //////////////////////////////////////////////////////////////*/

    error BadNodeCount(uint256 given, uint256 most);
    error BadNode(address account);
    error NoRounds();
    error NotAllowed(address account);
    error NotRegistered(uint256 node);
    error AlreadyRegistered(uint256 node);
    error EmptyKey();
    error EmptyDigest();
    error AlreadyProposed(uint256 node);
    error RoundNotOpen(uint32 round, uint32 open);
    error UnknownCodec(uint8 codec);
    error AlreadySubmitted(uint32 round, uint256 node);
    error SubmissionsMissing(uint32 round, uint256 have, uint256 want);
    error AlreadyGraded(uint32 round, uint256 node);
    error BadGradesLength(uint256 given, uint256 want);
    error BadGrade(uint256 node, uint8 grade);
    error GradesMissing(uint32 round, uint256 have, uint256 want);

    /*//////////////////////////////////////////////////////////////
                           CONSTANTS AND TASK
    //////////////////////////////////////////////////////////////*/

    uint256 public constant MAX_NODES = 50;

    /// @notice Stands in a list of grades where none is given: for oneself, and for who did not submit.
    uint8 public constant NO_GRADE = 255;

    uint8 public constant CODEC_RAW = 0x55;
    uint8 public constant CODEC_DAG_PB = 0x70;

    /// @notice SHA-256 of the run's configuration.
    bytes32 public immutable configDigest;

    uint32 public immutable maxRounds;

    uint256 public immutable nodeCount;

    /// @notice Block that the task was opened in: the log begins here.
    uint256 public immutable openedAt;

    /*//////////////////////////////////////////////////////////////
                                STORAGE
    //////////////////////////////////////////////////////////////*/

    struct Node {
        address account;
        bytes32 exchangeKey; // X25519 public key; zero until registered
        bytes32 proposedMap;
    }

    struct Submission {
        bytes32 digest; // SHA-256 of the root block; zero where there is none
        uint192 metrics; // six fixed-point values of 32 bits, see contracts/metrics.py
        uint8 codec;
    }

    /// @dev Bit j of a set stands for node j.
    struct Round {
        uint64 submitted;
        uint64 graded;
    }

    uint256 public registered;
    uint32 public settledRounds;
    bytes32 public mapDigest;

    Node[] internal _nodes;
    uint16[MAX_NODES] internal _reputation; // hundredths of a grade, 0..10000

    mapping(address account => uint256 nodePlusOne) internal _indexOf;
    mapping(bytes32 digest => uint256 count) internal _proposals;
    mapping(uint32 round => Round) internal _rounds;
    mapping(uint32 round => mapping(uint256 node => Submission)) internal _submissions;
    mapping(uint32 round => mapping(uint256 node => bytes)) internal _grades;

    /*//////////////////////////////////////////////////////////////
                                 SET-UP
    //////////////////////////////////////////////////////////////*/

    /// @param digest     SHA-256 of the run's configuration.
    /// @param rounds     Number of rounds of the task.
    /// @param accounts   Who may register, at most MAX_NODES; the order numbers them.
    /// @param experiment Name of the experiment, for the log.
    /// @param source     Where the data is from ("official", "stand-in"), for the log.
    constructor(
        bytes32 digest,
        uint32 rounds,
        address[] memory accounts,
        string memory experiment,
        string memory source
    ) {
        uint256 n = accounts.length;
        if (n == 0 || n > MAX_NODES) revert BadNodeCount(n, MAX_NODES);
        if (rounds == 0) revert NoRounds();
        if (digest == 0) revert EmptyDigest();
        configDigest = digest;
        maxRounds = rounds;
        nodeCount = n;
        openedAt = block.number;
        for (uint256 i; i < n; ++i) {
            address account = accounts[i];
            if (account == address(0) || _indexOf[account] != 0) revert BadNode(account);
            _indexOf[account] = i + 1;
            _nodes.push().account = account;
        }
        emit TaskOpened(digest, rounds, accounts, experiment, source);
    }

    /// @notice Take part, with the X25519 public key that this node's pairwise masks are made from.
    function register(bytes32 exchangeKey) external {
        uint256 node = _allowed();
        if (exchangeKey == 0) revert EmptyKey();
        if (_nodes[node].exchangeKey != 0) revert AlreadyRegistered(node);
        _nodes[node].exchangeKey = exchangeKey;
        ++registered;
        emit NodeRegistered(node, msg.sender, exchangeKey);
    }

    /// @notice State the digest of the feature map that this node computed. It is agreed once more than two thirds of
    ///         the allowed nodes stated the same; as each states one, no second digest can get there.
    function agreeMap(bytes32 digest) external {
        uint256 node = _registered();
        if (digest == 0) revert EmptyDigest();
        if (_nodes[node].proposedMap != 0) revert AlreadyProposed(node);
        _nodes[node].proposedMap = digest;
        uint256 count = ++_proposals[digest];
        emit MapProposed(node, digest);
        if (mapDigest == 0 && 3 * count > 2 * nodeCount) {
            mapDigest = digest;
            emit MapAgreed(digest);
        }
    }

    /*//////////////////////////////////////////////////////////////
                                 ROUNDS
    //////////////////////////////////////////////////////////////*/

    /// @notice Publish this node's model of the open round.
    /// @param digest  SHA-256 of the model file's root block.
    /// @param codec   Codec of its CIDv1: CODEC_RAW (one block) or CODEC_DAG_PB (larger).
    /// @param metrics The node's own metrics, six fixed-point values of 32 bits.
    function submit(uint32 round, bytes32 digest, uint8 codec, uint192 metrics) external {
        uint256 node = _registered();
        _requireOpen(round);
        if (digest == 0) revert EmptyDigest();
        if (codec != CODEC_RAW && codec != CODEC_DAG_PB) revert UnknownCodec(codec);
        Round storage r = _rounds[round];
        if (_has(r.submitted, node)) revert AlreadySubmitted(round, node);
        r.submitted |= uint64(1) << uint64(node);
        _submissions[round][node] = Submission(digest, metrics, codec);
        emit ModelSubmitted(round, node, digest, codec, metrics);
    }

    /// @notice Grade the models of the open round, once all are in.
    /// @param grades One byte a node: 0..100 for every peer that submitted, NO_GRADE for all others and oneself.
    function grade(uint32 round, bytes calldata grades) external {
        uint256 node = _registered();
        _requireOpen(round);
        Round storage r = _rounds[round];
        uint64 submitted = r.submitted;
        uint256 n = nodeCount;
        uint256 have = _count(submitted);
        if (have != n) revert SubmissionsMissing(round, have, n);
        if (_has(r.graded, node)) revert AlreadyGraded(round, node);
        if (grades.length != n) revert BadGradesLength(grades.length, n);
        for (uint256 j; j < n; ++j) {
            uint8 g = uint8(grades[j]);
            bool wanted = j != node && _has(submitted, j);
            if (wanted ? g > 100 : g != NO_GRADE) revert BadGrade(j, g);
        }
        r.graded |= uint64(1) << uint64(node);
        _grades[round][node] = grades;
        emit GradesGiven(round, node, grades);
    }

    /// @notice Close the open round once all grades are in: score every node, and update its reputation.
    /// @dev    score_j is the lower median of the grades given to j, weighted by the graders' reputation as it was
    ///         before (all equal in the first round). R = score in the first round, then (70 R + 30 score) / 100.
    function settle(uint32 round) external {
        _registered();
        _requireOpen(round);
        uint256 n = nodeCount;
        uint256 have = _count(_rounds[round].graded);
        if (have != n) revert GradesMissing(round, have, n);

        bytes[] memory given = new bytes[](n);
        uint256[] memory weights = new uint256[](n);
        for (uint256 i; i < n; ++i) {
            given[i] = _grades[round][i];
            weights[i] = round == 1 ? 1 : _reputation[i];
        }
        uint8[] memory scores = new uint8[](n);
        uint16[] memory updated = new uint16[](n);
        for (uint256 j; j < n; ++j) {
            uint256 score = _score(given, weights, j);
            uint256 fresh = 100 * score;
            if (round != 1) fresh = (70 * weights[j] + 30 * fresh) / 100;
            scores[j] = uint8(score);
            updated[j] = uint16(fresh);
            _reputation[j] = uint16(fresh);
        }
        settledRounds = round;
        emit RoundSettled(round, scores, updated);
    }

    /*//////////////////////////////////////////////////////////////
                                 VIEWS
    //////////////////////////////////////////////////////////////*/

    /// @notice The round that takes submissions and grades, 0 where none does.
    function openRound() public view returns (uint32) {
        if (mapDigest == 0 || registered != nodeCount || settledRounds == maxRounds) return 0;
        return settledRounds + 1;
    }

    /// @notice All allowed nodes in order: accounts, exchange keys (zero: not registered), proposed feature maps.
    function nodes() external view returns (Node[] memory) {
        return _nodes;
    }

    /// @notice Number of the node with this account. Reverts where there is none.
    function indexOf(address account) public view returns (uint256) {
        uint256 index = _indexOf[account];
        if (index == 0) revert NotAllowed(account);
        return index - 1;
    }

    /// @notice Who submitted and who graded in a round, bit j for node j.
    function roundState(uint32 round) external view returns (Round memory) {
        return _rounds[round];
    }

    /// @notice A node's submission of a round; its digest is zero where there is none.
    function submission(uint32 round, uint256 node) external view returns (Submission memory) {
        return _submissions[round][node];
    }

    /// @notice The grades that a node gave in a round, one byte a node; empty where it gave none.
    function gradesOf(uint32 round, uint256 node) external view returns (bytes memory) {
        return _grades[round][node];
    }

    /// @notice Reputation of all nodes now, in hundredths of a grade (0..10000).
    function reputation() external view returns (uint16[] memory all) {
        all = new uint16[](nodeCount);
        for (uint256 i; i < all.length; ++i) all[i] = _reputation[i];
    }

    /*//////////////////////////////////////////////////////////////
                                INTERNAL
    //////////////////////////////////////////////////////////////*/

    function _allowed() internal view returns (uint256) {
        return indexOf(msg.sender);
    }

    function _registered() internal view returns (uint256 node) {
        node = _allowed();
        if (_nodes[node].exchangeKey == 0) revert NotRegistered(node);
    }

    function _requireOpen(uint32 round) internal view {
        uint32 open = openRound();
        if (round != open || open == 0) revert RoundNotOpen(round, open);
    }

    function _has(uint64 set, uint256 node) internal pure returns (bool) {
        return (set >> node) & 1 != 0;
    }

    function _count(uint64 set) internal pure returns (uint256 count) {
        for (; set != 0; ++count) set &= set - 1;
    }

    /// @dev Smallest grade such that the graders who gave j at most that hold half of the weight or more. Where nobody
    ///      who graded j has weight, all weigh the same; a lone node has nobody to grade it and scores 100.
    ///      The weights are sorted into one bin a grade, which is cheaper than a search that sums them again and again.
    function _score(bytes[] memory given, uint256[] memory weights, uint256 j) internal pure returns (uint256 score) {
        uint256[] memory bins = new uint256[](101);
        uint256 total;
        uint256 graders;
        // At most MAX_NODES weights of at most 10000: nothing overflows.
        unchecked {
            for (uint256 i; i < given.length; ++i) {
                uint256 g = uint8(given[i][j]);
                if (g == NO_GRADE) continue;
                bins[g] += weights[i];
                total += weights[i];
                ++graders;
            }
            if (graders == 0) return 100;
            if (total == 0) {
                total = graders;
                for (uint256 i; i < given.length; ++i) {
                    uint256 g = uint8(given[i][j]);
                    if (g != NO_GRADE) ++bins[g];
                }
            }
            uint256 sum = bins[0];
            while (2 * sum < total) sum += bins[++score];
        }
    }
}
